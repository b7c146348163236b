//! The bus as a whole: the table of what each side does with each event, scripts of its races, random runs, and all runs of a small one.

use super::*;

mod model;
mod random;
mod script;
mod show;
mod table;
