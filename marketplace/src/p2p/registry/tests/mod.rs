mod network;
mod reading;

use network::{Network, release, soon};
