//! Shared address pools with real agents and a real etcd.

mod outage;
mod scene;
mod shared;
