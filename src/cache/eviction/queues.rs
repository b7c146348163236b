//! The lines in two queues, each linked through one table, so that any line leaves its queue in one step.

use super::Visits;

/// Where a line stands, for as long as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The new ones, on trial.
    Small,
    /// Those that were wanted again.
    Main,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) bytes: usize,
    pub(super) visits: Visits,
    pub(super) which: Which,
    older: Option<Place>,
    younger: Option<Place>,
}

/// The ends of a queue, and what is in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub(super) oldest: Option<Place>,
    youngest: Option<Place>,
    pub(super) lines: usize,
    pub(super) bytes: usize,
}

/// An end of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Looked at next.
    Oldest,
    /// Looked at last.
    Youngest,
}

/// Both queues.
#[derive(Clone, Debug, Default)]
pub(super) struct Queues {
    entries: Vec<Option<Entry>>,
    free: Vec<Place>,
    small: Queue,
    main: Queue,
}

impl Queues {
    pub(super) fn queue(&self, which: Which) -> &Queue {
        match which {
            Which::Small => &self.small,
            Which::Main => &self.main,
        }
    }

    fn queue_mut(&mut self, which: Which) -> &mut Queue {
        match which {
            Which::Small => &mut self.small,
            Which::Main => &mut self.main,
        }
    }

    /// The line at a place.
    ///
    /// # Panics
    /// Where none stands there: a place ends with [`Queues::remove`].
    pub(super) fn entry(&self, place: Place) -> &Entry {
        self.entries[place.0 as usize].as_ref().expect("a line stands at its place")
    }

    fn entry_mut(&mut self, place: Place) -> &mut Entry {
        self.entries[place.0 as usize].as_mut().expect("a line stands at its place")
    }

    /// A new line at the young end.
    pub(super) fn push(&mut self, which: Which, key: &str, bytes: usize) -> Place {
        let visits = Visits::counted();
        let entry = Entry { key: key.to_owned(), bytes, visits, which, older: None, younger: None };
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            Place(u32::try_from(self.entries.len() - 1).expect("fewer lines than 2^32"))
        });
        self.entries[place.0 as usize] = Some(entry);
        self.link(place, which, End::Youngest);
        place
    }

    /// The line goes. Its place may be another line's next.
    pub(super) fn remove(&mut self, place: Place) -> Entry {
        self.unlink(place);
        let entry = self.entries[place.0 as usize].take().expect("a line stands at its place");
        self.free.push(place);
        if self.small.lines + self.main.lines == 0 {
            // Where all lines go at once, so does the memory that they took.
            (self.entries, self.free) = (Vec::new(), Vec::new());
        }
        entry
    }

    /// The line goes to an end of a queue.
    pub(super) fn shift(&mut self, place: Place, which: Which, end: End) {
        self.unlink(place);
        self.link(place, which, end);
    }

    pub(super) fn resize(&mut self, place: Place, bytes: usize) {
        let entry = self.entry_mut(place);
        let (which, before) = (entry.which, std::mem::replace(&mut entry.bytes, bytes));
        let queue = self.queue_mut(which);
        queue.bytes = queue.bytes - before + bytes;
    }

    fn link(&mut self, place: Place, which: Which, end: End) {
        let queue = self.queue_mut(which);
        let neighbour = match end {
            End::Oldest => queue.oldest.replace(place),
            End::Youngest => queue.youngest.replace(place),
        };
        if neighbour.is_none() {
            (queue.oldest, queue.youngest) = (Some(place), Some(place));
        }
        let (older, younger) = if end == End::Oldest { (None, neighbour) } else { (neighbour, None) };
        let entry = self.entry_mut(place);
        (entry.which, entry.older, entry.younger) = (which, older, younger);
        let bytes = entry.bytes;
        if let Some(older) = older {
            self.entry_mut(older).younger = Some(place);
        }
        if let Some(younger) = younger {
            self.entry_mut(younger).older = Some(place);
        }
        let queue = self.queue_mut(which);
        queue.lines += 1;
        queue.bytes += bytes;
    }

    fn unlink(&mut self, place: Place) {
        let entry = self.entry_mut(place);
        let (which, bytes) = (entry.which, entry.bytes);
        let (older, younger) = (entry.older.take(), entry.younger.take());
        match older {
            Some(older) => self.entry_mut(older).younger = younger,
            None => self.queue_mut(which).oldest = younger,
        }
        match younger {
            Some(younger) => self.entry_mut(younger).older = older,
            None => self.queue_mut(which).youngest = older,
        }
        let queue = self.queue_mut(which);
        queue.lines -= 1;
        queue.bytes -= bytes;
    }

    /// A queue from its old end on.
    pub(super) fn iter(&self, which: Which) -> impl Iterator<Item = &Entry> {
        let next = |entry: &&Entry| entry.younger.map(|place| self.entry(place));
        std::iter::successors(self.queue(which).oldest.map(|place| self.entry(place)), next)
    }

    /// Places that a line has, or had.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.entries.len()
    }
}
