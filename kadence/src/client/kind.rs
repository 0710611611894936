use std::sync::Arc;

use kadence_core::{
    BootstrapAnswer, BootstrapError, BootstrapPhase, ClosestPeersAnswer, GetClosestPeersError, GetProvidersError,
    GetRecordError, Item, Outcome, ProvideAnswer, ProvidersAnswer, PutAnswer, PutRecordError, RecordAnswer,
    RequestError, StartProvidingError,
};
use libp2p::{PeerId, kad::PeerRecord};

use super::{
    connection::CallEnd,
    find_peer::{FindPeerError, FoundPeer, found_peer},
};

/// Operation of a [`Call`](crate::Call), which determines the types of the call's items, answer and error. Sealed:
/// other crates cannot implement this trait.
pub trait Kind: sealed::Sealed + 'static {
    /// Item that the call's stream yields before the result.
    type Item: Send + 'static;
    /// Answer of a call that succeeds.
    type Answer: Send + 'static;
    /// Error of a call that fails.
    type Error: From<RequestError> + Send + 'static;

    #[doc(hidden)]
    fn item(item: Item) -> Option<Self::Item>;
    #[doc(hidden)]
    fn result(end: CallEnd) -> Option<Result<Self::Answer, Self::Error>>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $item:ty, $of_item:expr => $answer:ty, $error:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $kind {}

        impl sealed::Sealed for $kind {}

        impl Kind for $kind {
            type Item = $item;
            type Answer = $answer;
            type Error = $error;

            fn item(item: Item) -> Option<Self::Item> {
                let of_item: fn(Item) -> Option<Self::Item> = $of_item;
                of_item(item)
            }

            fn result(end: CallEnd) -> Option<Result<Self::Answer, Self::Error>> {
                match end.outcome {
                    Outcome::$kind(result) => Some(result),
                    _ => None,
                }
            }
        }
    )*};
}

kinds! {
    /// Operation of [`Client::get_record`](crate::Client::get_record). Items are records, each with the peer that sent
    /// it. The peer is `None` for a record from the local store.
    GetRecord: Arc<PeerRecord>, |item| match item {
        Item::Record(record) => Some(record),
        Item::Provider(_) | Item::BootstrapPhase(_) => None,
    } => RecordAnswer, GetRecordError;
    /// Operation of [`Client::put_record`](crate::Client::put_record). There are no items.
    PutRecord: NoItem, |_| None => PutAnswer, PutRecordError;
    /// Operation of [`Client::put_record_to`](crate::Client::put_record_to). There are no items.
    PutRecordTo: NoItem, |_| None => PutAnswer, PutRecordError;
    /// Operation of [`Client::get_providers`](crate::Client::get_providers). Items are providers, each of them once.
    GetProviders: PeerId, |item| match item {
        Item::Provider(provider) => Some(provider),
        Item::Record(_) | Item::BootstrapPhase(_) => None,
    } => ProvidersAnswer, GetProvidersError;
    /// Operation of [`Client::start_providing`](crate::Client::start_providing). There are no items.
    StartProviding: NoItem, |_| None => ProvideAnswer, StartProvidingError;
    /// Operation of [`Client::get_closest_peers`](crate::Client::get_closest_peers). There are no items.
    GetClosestPeers: NoItem, |_| None => ClosestPeersAnswer, GetClosestPeersError;
    /// Operation of [`Client::bootstrap`](crate::Client::bootstrap). There is an item for each lookup that has ended.
    Bootstrap: BootstrapPhase, |item| match item {
        Item::BootstrapPhase(phase) => Some(phase),
        Item::Record(_) | Item::Provider(_) => None,
    } => BootstrapAnswer, BootstrapError;
}

/// Operation of [`Client::find_peer`](crate::Client::find_peer). There are no items.
#[derive(Debug, Clone, Copy)]
pub enum FindPeer {}

impl sealed::Sealed for FindPeer {}

impl Kind for FindPeer {
    type Item = NoItem;
    type Answer = FoundPeer;
    type Error = FindPeerError;

    fn item(_: Item) -> Option<NoItem> {
        None
    }

    /// The tracker's operation is a lookup of the closest peers; the driver adds the addresses that it knows.
    fn result(end: CallEnd) -> Option<Result<FoundPeer, FindPeerError>> {
        match end {
            CallEnd { outcome: Outcome::GetClosestPeers(lookup), located: Some(located) } => {
                Some(found_peer(lookup, located))
            }
            _ => None,
        }
    }
}

/// Item type of operations without items. It has no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoItem {}
