mod attacks;
mod fetching;
mod network;
mod resuming;
mod rules;
mod serving;
