//! Methods of the catalogue that are ways to train: one file or folder each, with the demonstration that measures it.
//!
//! What they need (schedules, laws, selection, guards, networks) lies in the other modules; here is how it belongs
//! together and what it was measured to give. [`METHODS`] lists them for the catalogue.

pub mod codeact;
pub mod crisis;
pub mod encoders;
mod fralbert;
pub mod geb;
mod gradnormlorp;
mod indus;
pub mod minicpm;
pub mod rps;
pub mod step_law;
mod taid;
mod tiny;
pub mod workbench;

use ounce_eval::method::Method;

/// The working methods of this crate.
pub const METHODS: &[Method] = &[
    codeact::METHOD,
    crisis::METHOD,
    fralbert::METHOD,
    geb::METHOD,
    gradnormlorp::METHOD,
    indus::METHOD,
    minicpm::METHOD,
    rps::METHOD,
    step_law::METHOD,
    taid::METHOD,
];
