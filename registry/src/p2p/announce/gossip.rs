//! Configuration of gossipsub for announcements.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use libp2p_gossipsub::{
    Config, ConfigBuilder, ConfigBuilderError, Message, MessageId, PeerScoreParams, PeerScoreThresholds, TopicHash,
    TopicScoreParams, ValidationMode, score_parameter_decay,
};

use crate::ContentId;

/// Default gossipsub topic of announcements.
pub const DEFAULT_TOPIC: &str = "/kadence/packages/1";

/// Maximum length of a gossipsub message, in bytes. Messages that are shorter, but too long for an announcement, are
/// rejected by the [`AnnouncementValidator`](super::AnnouncementValidator).
///
/// The limit is far above the length of an announcement, because gossipsub also applies it to its receive buffer, and
/// closes the stream if the buffer is longer. The buffer can hold several messages: an incomplete one and up to 8 KiB
/// that were read after it. With a smaller limit, a burst of a few announcements would be lost.
pub const MAX_TRANSMIT_LEN: usize = 16 * 1024;

/// Returns the configuration of gossipsub for announcements. Use it with `MessageAuthenticity::Signed` and the key pair
/// of the node: the signature proves the source of a message, which becomes a provider of the announced package in the
/// lists of the receivers.
///
/// Gossipsub forwards a received message only after `report_message_validation_result` was called with
/// `MessageAcceptance::Accept`.
///
/// # Errors
///
/// None in practice: all values are constants, and a test checks them.
pub fn gossip_config() -> Result<Config, ConfigBuilderError> {
    ConfigBuilder::default()
        .validate_messages()
        .validation_mode(ValidationMode::Strict)
        .message_id_fn(message_id)
        .max_transmit_size(MAX_TRANSMIT_LEN)
        // Message ids have 34 bytes, so that a list of 48 is far below the maximum length.
        .max_control_messages_sent(48)
        // With eight neighbours each, thirty nodes are reached in two hops. Smaller networks are a full mesh.
        .mesh_n(8)
        .mesh_n_low(5)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        .flood_publish(true)
        // A node outside of the mesh learns of a message at the next heartbeat: within a second, including the round
        // trip.
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_millis(500))
        .gossip_lazy(8)
        // In heartbeats. The same time as with the defaults, whose heartbeat is one second.
        .history_length(10)
        .history_gossip(6)
        .fanout_ttl(Duration::from_secs(60))
        // Later duplicates are ignored by the validator.
        .duplicate_cache_time(Duration::from_secs(120))
        .build()
}

/// Returns the id of a message: the BLAKE3 hash of its data. Messages with equal data from different sources have the
/// same id.
pub fn message_id(message: &Message) -> MessageId {
    MessageId::from(ContentId::of(&message.data).hash().as_bytes().to_vec())
}

/// Returns the parameters of peer scores. Rejected messages lower the score of a neighbour by ten times the square of
/// their number; this number falls to a tenth within ten minutes. [`peer_score_thresholds`] has the consequences.
///
/// A neighbour that sends few messages has no penalty, since announcements are rare. More than 16 peers with one IP
/// address have a penalty, except on 127.0.0.1 and ::1. The penalties for other violations of the protocol are
/// gossipsub's defaults.
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
        // The square of their number, which decays within ten minutes.
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

/// Returns the score thresholds. In quick succession, three rejected messages end the exchange of message ids (`IHAVE`
/// and `IWANT`) with a neighbour, four also keep this node from sending its own announcements to the neighbour, and
/// five make gossipsub ignore all messages of the neighbour. In addition, gossipsub removes neighbours with negative
/// scores from its mesh.
pub fn peer_score_thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        // Three.
        gossip_threshold: -60.0,
        // Four.
        publish_threshold: -120.0,
        // Five: all messages of the neighbour are ignored.
        graylist_threshold: -200.0,
        accept_px_threshold: 20.0,
        opportunistic_graft_threshold: 1.0,
    }
}
