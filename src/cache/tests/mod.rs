//! The bus as a whole: the table of what each side does with each event, scripts of its races, and random runs.

use super::*;

mod random;
mod script;
mod show;
mod table;
