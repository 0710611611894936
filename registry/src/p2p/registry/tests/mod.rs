mod contents;
mod heads;
mod living;
mod load;
mod network;
mod reading;

use network::{Network, event, hold, release, soon, within};
