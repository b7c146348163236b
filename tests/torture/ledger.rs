//! What was asked of a node, what it has acknowledged, and so what it must still know after its death.
//!
//! Everything that is asked is noted here before it is sent, and noted again when its answer has come. What lies between
//! the two at a kill may have happened or not; once a later answer shows which, it must not change any more.
//!
//! | service | acknowledged | what must hold after a restart |
//! | --- | --- | --- |
//! | queue | an enqueue | the message is there, once, under its id and with its bytes |
//! | queue | an acknowledgement | the message never comes again |
//! | queue | nothing by the end of a full drain | the message never comes at all |
//! | cache | a write, a removal, or a read that saw it | the key has it, or what was asked for after it |
//! | lock | a grant | its token renews it, and every later token is larger |
//! | lock | a release | the lock can be taken |

use std::collections::BTreeMap;

use bytes::Bytes;
use trine_protocol::queue::Delivery;

use crate::random::Random;

/// Something that a node has acknowledged and does not know any more, or knows wrongly; a line for a person.
pub(crate) type Broken = String;

/// Bytes of most bodies and values.
const SMALL_BYTES_MAX: u64 = 900;
/// Bytes of one in sixteen: longer than a disk's block, so that it can be torn, and than what sled keeps in one piece.
const LARGE_BYTES_MAX: u64 = 70_000;
/// Bytes of the number that a body or value begins with.
const NUMBER_BYTES: usize = 8;

/// The bytes that stand for a number, told again from the number alone.
fn bytes_of(number: u64, kind: u64) -> Bytes {
    let mut random = Random::new(number).part(kind);
    let most = if random.chance(6) { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX };
    let length = usize::try_from(random.below(most)).expect("a short length");
    let mut bytes = number.to_be_bytes().to_vec();
    while bytes.len() < NUMBER_BYTES + length {
        bytes.extend_from_slice(&random.next().to_be_bytes());
    }
    bytes.truncate(NUMBER_BYTES + length);
    bytes.into()
}

/// The number that bytes stand for; None where they are not what [`bytes_of`] makes of any.
fn number_in(bytes: &[u8], kind: u64) -> Option<u64> {
    let number = u64::from_be_bytes(bytes.get(..NUMBER_BYTES)?.try_into().ok()?);
    (bytes_of(number, kind) == bytes).then_some(number)
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Asked for.
    Sent,
    /// Acknowledged: it is in the queue.
    Enqueued,
    /// Its removal was asked for.
    Removing,
    /// Its removal is acknowledged, or a drain has shown that it never was: it must not come any more.
    Gone,
}

/// The messages of all queues, by numbers that are never used twice.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    progress: Vec<Progress>,
    /// Id and latest delivery token of those that are or may be in a queue.
    ids: BTreeMap<u64, (u64, u64)>,
    enqueued: usize,
}

impl Messages {
    const KIND: u64 = 1;

    /// A message that is about to be sent: its number and its body.
    pub(crate) fn send(&mut self) -> (u64, Bytes) {
        let number = self.progress.len() as u64;
        self.progress.push(Progress::Sent);
        (number, bytes_of(number, Self::KIND))
    }

    fn set(&mut self, number: u64, progress: Progress) {
        let place = &mut self.progress[usize::try_from(number).expect("a number of ours")];
        let counts = |progress| usize::from(progress == Progress::Enqueued);
        self.enqueued = self.enqueued + counts(progress) - counts(*place);
        *place = progress;
    }

    /// The node says that it has the message.
    pub(crate) fn enqueued(&mut self, number: u64, id: u64) -> Result<(), Broken> {
        self.know(number, id, 0)?;
        // A consumer may have been faster than this answer.
        if self.progress[usize::try_from(number).expect("a number of ours")] == Progress::Sent {
            self.set(number, Progress::Enqueued);
        }
        Ok(())
    }

    /// Remembers an id and the token of a delivery, 0 where it is none.
    fn know(&mut self, number: u64, id: u64, token: u64) -> Result<(), Broken> {
        let (id_before, token_before) = *self.ids.entry(number).or_insert((id, 0));
        if id_before != id {
            return Err(format!("message {number} is there twice, as {id_before} and as {id}: it was executed twice"));
        }
        if token != 0 && token <= token_before {
            return Err(format!("message {number} was delivered under token {token}, after {token_before}"));
        }
        self.ids.insert(number, (id, token.max(token_before)));
        Ok(())
    }

    /// The node hands a message out, and its removal is about to be asked for.
    pub(crate) fn delivered(&mut self, delivery: &Delivery) -> Result<u64, Broken> {
        let id = delivery.id;
        let number = number_in(&delivery.body, Self::KIND)
            .ok_or_else(|| format!("message {id} has {} bytes that nobody sent", delivery.body.len()))?;
        let progress = usize::try_from(number).ok().and_then(|number| self.progress.get(number));
        match progress {
            None => Err(format!("message {number} was never sent")),
            Some(Progress::Gone) => Err(format!("message {number}, id {id}, was gone, and is back")),
            Some(_) => {
                self.know(number, id, delivery.token)?;
                self.set(number, Progress::Removing);
                Ok(number)
            }
        }
    }

    /// The node says that it has removed the message.
    pub(crate) fn removed(&mut self, number: u64) {
        self.set(number, Progress::Gone);
        self.ids.remove(&number);
    }

    /// How many are acknowledged and were not handed out yet.
    pub(crate) fn waiting(&self) -> usize {
        self.enqueued
    }

    /// Everything that could come has come: what did not is gone, or missing.
    pub(crate) fn drained(&mut self) -> Result<(), Broken> {
        let numbers = 0..self.progress.len() as u64;
        let missing: Vec<u64> = numbers
            .zip(&self.progress)
            .filter_map(|(number, progress)| (*progress == Progress::Enqueued).then_some(number))
            .collect();
        if let Some(first) = missing.first() {
            let (count, id) = (missing.len(), self.ids[first].0);
            return Err(format!("{count} acknowledged messages are missing, the first is {first}, id {id}"));
        }
        self.progress.fill(Progress::Gone);
        self.ids.clear();
        Ok(())
    }
}

/// One key of the cache: a row of operations, one after the other, numbered from 1.
#[derive(Debug, Default)]
pub(crate) struct Key {
    /// The last operation that was asked for.
    sent: u64,
    /// The last one that is acknowledged, or was seen.
    known: u64,
    /// What was asked for up to here and is not `known` did not happen: a read has shown it.
    settled: u64,
}

/// What is asked of a key.
#[derive(Debug)]
pub(crate) enum KeyOperation {
    /// Write this.
    Put(Bytes),
    /// Remove it.
    Delete,
}

impl Key {
    const KIND: u64 = 2;

    fn is_delete(number: u64) -> bool {
        number % 9 == 5
    }

    /// The next operation, about to be sent.
    pub(crate) fn send(&mut self) -> (u64, KeyOperation) {
        self.sent += 1;
        let number = self.sent;
        let operation = match Self::is_delete(number) {
            true => KeyOperation::Delete,
            false => KeyOperation::Put(bytes_of(number, Self::KIND)),
        };
        (number, operation)
    }

    /// The node says that it has done this one.
    pub(crate) fn done(&mut self, number: u64) {
        self.known = self.known.max(number);
    }

    /// The node says that the key has this value, while nothing is under way.
    pub(crate) fn read(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Broken> {
        let (known, sent) = (self.known, self.sent);
        let mut possible = std::iter::once(known).chain(known.max(self.settled) + 1..=sent);
        let found = match value {
            None => possible.find(|number| *number == 0 || Self::is_delete(*number)),
            Some(bytes) => {
                let written = number_in(bytes, Self::KIND);
                let written = written.ok_or_else(|| format!("{key} has bytes that nobody wrote"))?;
                possible.find(|number| *number == written)
            }
        };
        let Some(found) = found else {
            let has = value.map_or("nothing".to_owned(), |bytes| format!("write {:?}", number_in(bytes, Self::KIND)));
            return Err(format!("{key} has {has}, but operation {known} was acknowledged, and {sent} is the last"));
        };
        (self.known, self.settled) = (found, sent);
        Ok(())
    }
}

/// One lock, which one client takes and gives back.
#[derive(Debug, Default)]
pub(crate) struct Lock {
    pub(crate) standing: Standing,
    /// The largest token so far.
    token_max: u64,
}

/// Where a lock stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody has it.
    #[default]
    Free,
    /// A grant or a release was asked for, and not answered.
    Unknown,
    /// Held under this token.
    Held(u64),
}

impl Lock {
    /// A grant or a release is about to be asked for.
    pub(crate) fn asking(&mut self) {
        self.standing = Standing::Unknown;
    }

    /// The node says that it has granted the lock.
    pub(crate) fn granted(&mut self, lock: &str, token: u64) -> Result<(), Broken> {
        if token <= self.token_max {
            return Err(format!("{lock} was granted under token {token}, after {}", self.token_max));
        }
        *self = Self { standing: Standing::Held(token), token_max: token };
        Ok(())
    }

    /// The node says that the lock is free.
    pub(crate) fn released(&mut self) {
        self.standing = Standing::Free;
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) messages: Messages,
    pub(crate) keys: Vec<Key>,
    pub(crate) locks: Vec<Lock>,
    /// Acknowledged operations so far.
    pub(crate) acknowledged: u64,
    /// The first thing that was found broken while the load ran.
    pub(crate) broken: Option<Broken>,
}

impl Ledger {
    pub(crate) fn new(keys: usize, locks: usize) -> Self {
        Self {
            messages: Messages::default(),
            keys: (0..keys).map(|_| Key::default()).collect(),
            locks: (0..locks).map(|_| Lock::default()).collect(),
            acknowledged: 0,
            broken: None,
        }
    }

    /// Notes a result of something that the node has acknowledged.
    pub(crate) fn note(&mut self, result: Result<(), Broken>) {
        self.acknowledged += 1;
        if let Err(broken) = result {
            self.broken.get_or_insert(broken);
        }
    }
}

#[test]
fn what_is_missing_is_noticed_and_what_is_unknown_is_not() {
    let delivery = |id, body: &Bytes| Delivery { id, token: 100, deliveries: 1, body: body.clone(), attributes: None };
    let mut messages = Messages::default();
    let ((kept, kept_body), (lost, _), (unsure, unsure_body)) = (messages.send(), messages.send(), messages.send());
    messages.enqueued(kept, 10).unwrap();
    messages.enqueued(lost, 11).unwrap();
    assert_eq!(messages.waiting(), 2);
    assert_eq!(messages.delivered(&delivery(12, &unsure_body)), Ok(unsure));
    messages.delivered(&delivery(10, &kept_body)).unwrap();
    assert!(messages.delivered(&delivery(13, &kept_body)).unwrap_err().contains("twice"));
    assert!(messages.delivered(&delivery(10, &kept_body)).unwrap_err().contains("token 100, after 100"));
    messages.removed(kept);
    assert!(messages.delivered(&delivery(10, &kept_body)).unwrap_err().contains("is back"));
    assert!(messages.drained().unwrap_err().contains("1 acknowledged messages are missing, the first is 1"));
    assert!(messages.delivered(&delivery(9, &kept_body.slice(1..))).unwrap_err().contains("nobody sent"));

    let mut key = Key::default();
    key.read("k", None).unwrap();
    let values: Vec<Option<Bytes>> = (0..6)
        .map(|_| match key.send().1 {
            KeyOperation::Put(value) => Some(value),
            KeyOperation::Delete => None,
        })
        .collect();
    assert_eq!(values.iter().filter(|value| value.is_none()).count(), 1);
    key.done(2);
    assert!(key.read("k", values[0].as_deref()).unwrap_err().contains("operation 2 was acknowledged"));
    key.read("k", values[3].as_deref()).unwrap();
    assert!(key.read("k", values[2].as_deref()).is_err(), "what a read has seen counts as acknowledged");
    assert!(key.read("k", None).is_err(), "what a read has not seen did not happen");
    let (number, KeyOperation::Put(value)) = key.send() else { panic!("operation 7 writes") };
    key.read("k", Some(&value)).unwrap();
    assert_eq!((number, key.known), (7, 7));

    let mut lock = Lock::default();
    lock.granted("l", 7).unwrap();
    lock.released();
    assert!(lock.granted("l", 7).unwrap_err().contains("after 7"));
}
