//! zcached: remembers what compilers read and wrote. It never runs a program.
//!
//! `service` (wire ⇄ domain) → `cache` (lookup, commit) → `manifest`, `roles`, `template`, `packed`, `distill`,
//! `compilers` (pure) → `inputs`, `cas`, `index`, `process` (I/O, one kind each).

pub mod builds;
pub mod cache;
pub mod callers;
pub mod cas;
pub mod commit;
pub mod compiled;
pub mod compilers;
pub mod config;
pub mod confine;
pub mod declared;
pub mod directories;
pub mod distill;
pub mod distilled;
pub mod evict;
pub mod expect;
pub mod facts;
pub mod failpoint;
pub mod flights;
pub mod gc;
pub mod images;
pub mod index;
pub mod ingest;
pub mod inputs;
pub mod invocation;
pub mod lent;
pub mod manifest;
pub mod manifests;
pub mod observation;
pub mod occupied;
pub mod packed;
pub mod paths;
pub mod places;
pub mod plugins;
pub mod premises;
pub mod process;
pub mod promises;
pub mod recent;
pub mod records;
pub mod refusal;
pub mod roles;
pub mod scrub;
pub mod server;
pub mod service;
pub mod sources;
pub mod stats;
pub mod status;
pub mod store;
pub mod template;
pub mod trace;
pub mod twins;
pub mod wire;
