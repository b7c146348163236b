//! Messages into frames and back.
//!
//! The body of a peer frame is a [`PeerBatch`]. It is put together message by message, so that each one's length is known
//! before it is in: `[[message, message, ...]]`, the inner array with a header of fixed length whose count is filled in last.
//!
//! # Invariants
//! - A frame never exceeds the wire's limit. Once a body has [`BATCH_BYTES_MAX`], the next message opens another.
//! - What decodes is within the depth that every body of the protocol is held to.

use std::sync::Arc;

use bytes::Bytes;
use trine_protocol::limits::FRAME_BYTES_MAX;
use trine_protocol::{Error, codec, frame};

use crate::ids::GroupId;
use crate::node::message::{GroupMessage, PeerBatch};

/// Bytes of a body that take no further message: as much as one append, so that a heartbeat never waits behind several.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that a body may have at all.
const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - frame::HEADER_BYTES;
/// An array of one element: the batch.
const ARRAY_OF_ONE: u8 = 0x91;
/// An array with a count of four bytes: its messages.
const ARRAY_32: u8 = 0xdd;
const HEADER_BYTES: usize = 6;

/// A body under construction.
#[derive(Debug)]
pub struct Batch {
    body: Vec<u8>,
    count: u32,
}

/// A message that no frame can hold; our own bounds should have kept it from being made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message between nodes of {bytes} bytes does not fit a frame")]
pub struct MessageTooLarge {
    /// Its bytes.
    pub bytes: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { body: vec![ARRAY_OF_ONE, ARRAY_32, 0, 0, 0, 0], count: 0 }
    }
}

impl Batch {
    /// Adds a message. Where it does not fit any more, the batch as it was comes out, and this one begins with the message.
    ///
    /// # Errors
    /// [`MessageTooLarge`]; the batch is as before.
    pub fn add(
        &mut self,
        group: GroupId,
        message: &Arc<GroupMessage>,
    ) -> Result<Option<(Bytes, u32)>, MessageTooLarge> {
        let start = self.body.len();
        rmp_serde::encode::write(&mut self.body, &(group, &**message)).expect("our own types have a MessagePack form");
        let bytes = self.body.len() - start;
        if HEADER_BYTES + bytes > BODY_BYTES_MAX {
            self.body.truncate(start);
            return Err(MessageTooLarge { bytes });
        }
        if self.count > 0 && self.body.len() > BATCH_BYTES_MAX {
            let mut next = Self::default();
            next.body.extend_from_slice(&self.body[start..]);
            next.count = 1;
            self.body.truncate(start);
            return Ok(std::mem::replace(self, next).finish());
        }
        self.count += 1;
        Ok(None)
    }

    /// The body and how many messages it has, unless it has none.
    pub fn finish(mut self) -> Option<(Bytes, u32)> {
        self.body[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&self.count.to_be_bytes());
        (self.count > 0).then(|| (Bytes::from(self.body), self.count))
    }
}

/// Reads a body back.
///
/// # Errors
/// `MalformedBody`.
pub fn decode(body: &[u8]) -> Result<PeerBatch, Error> {
    codec::decode("PeerBatch", body)
}

#[cfg(test)]
mod tests {
    use trine_protocol::ErrorCode;
    use trine_protocol::cache::{Put, Version};

    use crate::cache::{BusMessage, LeaseTag, ToHome, Versioned};
    use crate::ids::NodeId;
    use crate::node::message::Forward;
    use crate::raft;

    use super::*;

    fn vote(term: u64) -> Arc<GroupMessage> {
        let body = raft::Body::Vote { last_index: 3, last_term: 2, transfer: false };
        Arc::new(GroupMessage::Raft(raft::Message::new(term, body)))
    }

    fn append(bytes: usize) -> Arc<GroupMessage> {
        let entry =
            raft::Entry { index: 1, term: 1, stamp_ms: 1, wall_ms: 1, data: vec![7; bytes].into(), membership: None };
        let entries = vec![entry];
        let body = raft::Body::Append { prev_index: 0, prev_term: 0, entries, commit: 0, round: 1, log_time_ms: 0 };
        Arc::new(GroupMessage::Raft(raft::Message::new(1, body)))
    }

    fn bus() -> Arc<GroupMessage> {
        let dirty = Some(Versioned::new(Version { epoch: 4, count: 1 }, None));
        let tag = LeaseTag { term: 1, number: 2 };
        let message = ToHome::WriteBack { request: 1, key: "k".into(), epoch: 4, dirty, end: true, tag };
        Arc::new(GroupMessage::Bus(BusMessage::ToHome(message)))
    }

    fn forward() -> Arc<GroupMessage> {
        let request = Put { key: "k".into(), value: "v".into(), ..Put::default() }.into();
        Arc::new(GroupMessage::Forward(Forward {
            id: 1,
            session: 2,
            sequence: 3,
            acked_below: 1,
            request,
            at: crate::node::message::Position::default(),
        }))
    }

    fn read(frames: &[(Bytes, u32)]) -> Vec<(GroupId, GroupMessage)> {
        let batches: Vec<PeerBatch> = frames.iter().map(|(body, _)| decode(body).unwrap()).collect();
        for (batch, (body, count)) in batches.iter().zip(frames) {
            assert_eq!(batch.messages.len(), *count as usize);
            assert!(body.len() <= BODY_BYTES_MAX);
        }
        batches.into_iter().flat_map(|batch| batch.messages).collect()
    }

    fn write(messages: &[(GroupId, Arc<GroupMessage>)]) -> Vec<(Bytes, u32)> {
        let mut batch = Batch::default();
        let mut frames: Vec<_> =
            messages.iter().filter_map(|(group, message)| batch.add(*group, message).unwrap()).collect();
        frames.extend(batch.finish());
        frames
    }

    #[test]
    fn small_messages_share_a_frame_and_come_back_in_order() {
        let messages: Vec<_> =
            [vote(1), bus(), forward(), vote(2)].into_iter().zip(0..).map(|(m, g)| (GroupId(g), m)).collect();
        let frames = write(&messages);
        assert_eq!(frames.len(), 1);
        let expected: Vec<_> = messages.iter().map(|(group, message)| (*group, (**message).clone())).collect();
        assert_eq!(read(&frames), expected);
        // It is the plain form of a batch but for the length of one header.
        assert_eq!(
            decode(&crate::node::message::encode(&PeerBatch { messages: expected.clone() })).unwrap().messages,
            expected
        );
    }

    #[test]
    fn large_messages_are_split_over_frames_without_losing_one() {
        let messages: Vec<_> = [vote(1), append(900_000), append(900_000), vote(2), append(3_000_000), vote(3)]
            .map(|m| (GroupId(1), m))
            .into();
        let frames = write(&messages);
        assert_eq!(frames.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 2, 1, 1]);
        let expected: Vec<_> = messages.iter().map(|(group, message)| (*group, (**message).clone())).collect();
        assert_eq!(read(&frames), expected);
    }

    #[test]
    fn a_message_over_the_frame_is_refused_and_the_others_stay() {
        let mut batch = Batch::default();
        assert_eq!(batch.add(GroupId(1), &vote(1)), Ok(None));
        assert!(batch.add(GroupId(1), &append(FRAME_BYTES_MAX)).is_err());
        assert_eq!(read(&[batch.finish().unwrap()]), [(GroupId(1), (*vote(1)).clone())]);
        assert_eq!(Batch::default().finish(), None);
    }

    #[test]
    fn what_is_no_batch_is_malformed() {
        let nested: Vec<u8> = std::iter::repeat_n(0x91, 10_000).chain([0xc0]).collect();
        let claimed = [0x91, 0xdd, 0xff, 0xff, 0xff, 0xff];
        let (whole, _) = write(&[(GroupId(1), forward())]).remove(0);
        assert_eq!(NodeId::numbered(1).as_str(), "node1");
        for body in [nested.as_slice(), &claimed, b"GET / HTTP/1.1", &whole[..whole.len() - 1], &[]] {
            assert_eq!(decode(body).unwrap_err().code, ErrorCode::MalformedBody, "{:?}", &body[..body.len().min(20)]);
        }
    }
}
