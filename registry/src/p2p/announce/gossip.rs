//! How gossipsub is set up for announcements.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use libp2p::gossipsub::{
    Config, ConfigBuilder, ConfigBuilderError, Message, MessageId, PeerScoreParams, PeerScoreThresholds, TopicHash,
    TopicScoreParams, ValidationMode, score_parameter_decay,
};

use crate::ContentId;

/// The topic of announcements, unless another one is configured.
pub const DEFAULT_TOPIC: &str = "/kadence/packages/1";

/// The longest message of gossipsub, in bytes. An announcement with what is put around it takes a tenth of that; but gossipsub
/// measures everything that it has read at once, 8 KiB and the beginning of a message before it, and closes the stream if that
/// is longer. With less room than that, a burst of a few announcements is lost. What is too long for an announcement the
/// [`AnnouncementValidator`](super::AnnouncementValidator) refuses.
pub const MAX_TRANSMIT_LEN: usize = 16 * 1024;

/// The configuration. Use it with `MessageAuthenticity::Signed` and the node's key: the source of a message is then proven,
/// and is the first provider of what is announced.
///
/// Messages wait for `report_message_validation_result` before they are forwarded.
///
/// # Errors
///
/// None: the values are constants, which a test checks.
pub fn gossip_config() -> Result<Config, ConfigBuilderError> {
    ConfigBuilder::default()
        .validate_messages()
        .validation_mode(ValidationMode::Strict)
        .message_id_fn(message_id)
        .max_transmit_size(MAX_TRANSMIT_LEN)
        // A list of ids, 34 bytes each, is no longer than an announcement may be.
        .max_control_messages_sent(48)
        // Eight neighbours each reach thirty nodes in two steps, and small networks are a full mesh.
        .mesh_n(8)
        .mesh_n_low(5)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        .flood_publish(true)
        // Who is not in the mesh yet hears of a message at the next heartbeat: within a second, with the round trip.
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_millis(500))
        .gossip_lazy(8)
        // In heartbeats: as long as the defaults, which are for one of a second.
        .history_length(10)
        .history_gossip(6)
        .fanout_ttl(Duration::from_secs(60))
        // Later repetitions end at the gate.
        .duplicate_cache_time(Duration::from_secs(120))
        .build()
}

/// A message's id: the hash of what it says, so that the same announcement is the same message whoever sends it.
pub fn message_id(message: &Message) -> MessageId {
    MessageId::from(ContentId::of(&message.data).hash().as_bytes().to_vec())
}

/// The scores of neighbours. What counts is invalid messages: one of them is forgiven within minutes, five get a neighbour
/// [ignored](peer_score_thresholds). Announcements are rare, so that nobody is expected to deliver any.
pub fn peer_score_params(topic: TopicHash) -> PeerScoreParams {
    let announcements = TopicScoreParams {
        topic_weight: 1.0,
        // At most 3, after five minutes.
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 300.0,
        // At most 10.
        first_message_deliveries_weight: 0.5,
        first_message_deliveries_decay: score_parameter_decay(Duration::from_secs(600)),
        first_message_deliveries_cap: 20.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // The square of their number, which decays in ten minutes.
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: score_parameter_decay(Duration::from_secs(600)),
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: [(topic, announcements)].into(),
        topic_score_cap: 20.0,
        // Offices and data centres have many nodes behind one address.
        ip_colocation_factor_weight: -1.0,
        ip_colocation_factor_threshold: 16.0,
        ip_colocation_factor_whitelist: [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].into(),
        ..PeerScoreParams::default()
    }
}

/// What becomes of a neighbour with a bad score, by how many invalid messages it has sent.
pub fn peer_score_thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        // Three.
        gossip_threshold: -60.0,
        // Four.
        publish_threshold: -120.0,
        // Five: nothing that it sends is looked at any more.
        graylist_threshold: -200.0,
        accept_px_threshold: 20.0,
        opportunistic_graft_threshold: 1.0,
    }
}
