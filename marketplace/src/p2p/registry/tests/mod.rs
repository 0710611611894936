mod contents;
mod heads;
mod network;
mod reading;

use network::{Network, event, hold, release, soon, within};
