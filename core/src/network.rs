use crate::setters::setters;

/// Estimates of the network, for [`handle_network`](crate::QueryTracker::handle_network). Without a call, nothing is
/// known of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Network {
    /// Number of nodes in the network, as last estimated. `None`, the default, if it is unknown.
    pub size: Option<usize>,
    /// Reachability of the network. Default: [`Reachability::Unknown`].
    pub reachability: Reachability,
}

setters!(Network { reachability: Reachability; into size: Option<usize> });

/// Reachability of the network for the local node.
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
