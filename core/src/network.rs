use crate::setters::setters;

/// Estimates of the network, for [`handle_network`](crate::QueryTracker::handle_network). Until the first call, both
/// fields have their defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Network {
    /// Number of nodes in the network, as last estimated. `None`, the default, if it is unknown. Ignored if
    /// [`TrackerConfig::expected_network_size`](crate::TrackerConfig::expected_network_size) is set.
    pub size: Option<usize>,
    /// Reachability of the network. Default: [`Reachability::Unknown`].
    pub reachability: Reachability,
}

setters!(Network { reachability: Reachability; into size: Option<usize> });

/// Connection of the local node to the rest of the network, as reported to the tracker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reachability {
    /// Nobody has told the tracker.
    #[default]
    Unknown,
    /// The node is part of the network.
    Connected,
    /// The node may be cut off from the rest of the network: no empty result is conclusive.
    Isolated,
}
