//! Errors: one enum for each operation, and the reasons that all operations share.

mod bootstrap;
mod get_closest_peers;
mod get_providers;
mod get_record;
mod put_record;
mod request;
mod start_providing;

pub use self::{
    bootstrap::BootstrapError,
    get_closest_peers::GetClosestPeersError,
    get_providers::GetProvidersError,
    get_record::GetRecordError,
    put_record::PutRecordError,
    request::{InvalidRequestError, RequestError},
    start_providing::StartProvidingError,
};
