//! Tests of gossipsub's configuration and of the scores of peers that send invalid messages.

use libp2p_gossipsub::{IdentTopic, Message};

use super::*;

#[test]
fn the_configuration_and_the_scores_are_valid() {
    let config = gossip_config().unwrap();
    assert!(config.validate_messages());
    assert_eq!(config.max_transmit_size(), MAX_TRANSMIT_LEN);
    let topic = IdentTopic::new(DEFAULT_TOPIC).hash();
    peer_score_params(topic).validate().unwrap();
    peer_score_thresholds().validate().unwrap();
}

#[test]
fn copies_from_different_senders_are_one_message() {
    let message = |source, data: &[u8]| Message {
        source: Some(peer(source)),
        data: data.to_owned(),
        sequence_number: Some(u64::from(source)),
        topic: IdentTopic::new(DEFAULT_TOPIC).hash(),
    };
    assert_eq!(message_id(&message(1, b"news")), message_id(&message(2, b"news")));
    assert_ne!(message_id(&message(1, b"news")), message_id(&message(1, b"other news")));
}

#[test]
fn five_invalid_messages_outweigh_the_highest_score() {
    let topic = IdentTopic::new(DEFAULT_TOPIC).hash();
    let params = peer_score_params(topic.clone());
    let scores = &params.topics[&topic];
    let earned = scores.time_in_mesh_weight * scores.time_in_mesh_cap
        + scores.first_message_deliveries_weight * scores.first_message_deliveries_cap;
    let lost = |messages: f64| scores.invalid_message_deliveries_weight * messages * messages;
    let graylist = peer_score_thresholds().graylist_threshold;
    assert!(earned + lost(5.0) < graylist);
    assert!(lost(4.0) > graylist);
    assert!(earned + lost(3.0) < peer_score_thresholds().gossip_threshold);
}
