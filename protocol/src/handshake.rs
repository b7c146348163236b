//! The handshake: who is there, and in which version do we speak.
//!
//! ```text
//!  who connects                       who listens
//!       |------ Hello ------------------->|   within 2 s of the connection, else it is closed
//!       |<----- Welcome ------------------|   and the connection is open
//!       |<----- Goodbye(error), closed ---|   or this: a wrong version, cluster or password, or no hello at all
//! ```
//!
//! Nothing is sent before the welcome has arrived: what it says (version, limits, number of groups) decides how.
//! TLS, where it is used, is below all this.
//!
//! # Invariants
//! - Both sides speak the version in the welcome; it lies in the range of both.
//! - A hello, a welcome and a goodbye are read by every version, so they only ever grow at the end.
//!
//! # Caveats
//! - Credentials are bytes in the hello: without TLS anybody on the path reads them.
//! - What is checked here is form, version and cluster. Whether credentials are right, and whether an incarnation is the
//!   one known under that name, only the node can say.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec;
use crate::error::{Error, ErrorCode};
use crate::frame::{Frame, Kind};
use crate::limits;
use crate::validate::at_most;

/// The oldest version of the protocol that this crate speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest version of the protocol that this crate speaks.
pub const VERSION_MAX: u16 = 1;

/// The text `TRNE`: the first thing in a hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Magic;

impl Magic {
    /// What it looks like.
    pub const TEXT: &'static str = "TRNE";
}

impl Serialize for Magic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::TEXT)
    }
}

impl<'de> Deserialize<'de> for Magic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == Self::TEXT {
            return Ok(Self);
        }
        Err(serde::de::Error::custom(format_args!("the magic is {:?} and not 'TRNE'", text.get(..8).unwrap_or(&text))))
    }
}

/// What the connecting side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Sends requests.
    Client,
    /// Another node: sends frames of kind [`Kind::Peer`].
    Peer,
}

/// The first frame of who connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// `TRNE`.
    pub magic: Magic,
    /// The oldest version of the protocol that the sender speaks.
    pub version_min: u16,
    /// The newest; not below `version_min`.
    pub version_max: u16,
    /// What the sender is.
    pub role: Role,
    /// A node's name, or any name of a client, for logs and metrics: 1 to [`limits::NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Of a node: random, new with each data directory. Of a client: anything.
    pub incarnation: u64,
    /// The cluster that the sender means; 0 for any.
    pub cluster_id: u64,
    /// What the node was configured to ask for; empty where it asks for nothing. At most [`limits::CREDENTIALS_BYTES_MAX`] bytes.
    #[serde(default)]
    pub credentials: Bytes,
}

/// The answer to a [`Hello`] that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both sides speak from here on.
    pub version: u16,
    /// The node's name.
    pub node: String,
    /// Random, new with each data directory of the node.
    pub incarnation: u64,
    /// Random, made once per cluster.
    pub cluster_id: u64,
    /// How many groups the cluster has: with it a client can place a name itself.
    pub groups: u32,
    /// What the node takes.
    pub limits: Limits,
}

/// The limits that a client can run into, as this node has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// As [`limits::FRAME_BYTES_MAX`].
    pub frame_bytes_max: u32,
    /// As [`limits::VALUE_BYTES_MAX`].
    pub value_bytes_max: u32,
    /// As [`limits::KEY_BYTES_MAX`].
    pub key_bytes_max: u32,
    /// As [`limits::NAME_BYTES_MAX`].
    pub name_bytes_max: u32,
    /// As [`limits::IN_FLIGHT_MAX`].
    pub in_flight_max: u32,
    /// As [`limits::DEADLINE_MS_MAX`].
    pub deadline_ms_max: u32,
}

impl Default for Limits {
    /// Those of this crate.
    fn default() -> Self {
        Self {
            frame_bytes_max: limits::FRAME_BYTES_MAX as u32,
            value_bytes_max: limits::VALUE_BYTES_MAX as u32,
            key_bytes_max: limits::KEY_BYTES_MAX as u32,
            name_bytes_max: limits::NAME_BYTES_MAX as u32,
            in_flight_max: limits::IN_FLIGHT_MAX as u32,
            deadline_ms_max: limits::DEADLINE_MS_MAX,
        }
    }
}

impl Hello {
    /// A client's, for any cluster, in all versions that this crate speaks.
    pub fn client(name: impl Into<String>, credentials: Bytes) -> Self {
        Self {
            magic: Magic,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            role: Role::Client,
            name: name.into(),
            incarnation: 0,
            cluster_id: 0,
            credentials,
        }
    }

    /// A node's, in all versions that this crate speaks.
    pub fn peer(node: impl Into<String>, incarnation: u64, cluster_id: u64, credentials: Bytes) -> Self {
        Self { role: Role::Peer, incarnation, cluster_id, ..Self::client(node, credentials) }
    }

    /// Its frame.
    pub fn to_frame(&self) -> Frame {
        Frame::new(Kind::Hello, codec::encode(self))
    }

    /// Reads the first frame of a connection.
    ///
    /// # Errors
    /// `BadFrame` where it is no hello, `MalformedBody` where the hello cannot be read, `TooLarge` and `InvalidArgument` where
    /// a field is out of its range. The caller sends it as [`Frame::goodbye`] and closes.
    pub fn from_frame(frame: &Frame) -> Result<Self, Error> {
        if frame.kind != Kind::Hello {
            return Err(Error::new(
                ErrorCode::BadFrame,
                format!("the first frame is a {:?} and not a Hello", frame.kind),
            ));
        }
        let hello: Self = codec::decode("Hello", &frame.body)?;
        if hello.name.is_empty() {
            return Err(Error::new(ErrorCode::InvalidArgument, "Hello.name is empty"));
        }
        at_most("Hello.name", hello.name.len(), limits::NAME_BYTES_MAX)?;
        at_most("Hello.credentials", hello.credentials.len(), limits::CREDENTIALS_BYTES_MAX)?;
        Ok(hello)
    }

    /// The newest version that both sides speak.
    ///
    /// # Errors
    /// `UnsupportedVersion`, naming both ranges.
    pub fn negotiate(&self) -> Result<u16, Error> {
        let version = self.version_max.min(VERSION_MAX);
        if version >= self.version_min.max(VERSION_MIN) {
            return Ok(version);
        }
        let (min, max) = (self.version_min, self.version_max);
        let message =
            format!("the hello offers versions {min} to {max}, this node speaks {VERSION_MIN} to {VERSION_MAX}");
        Err(Error::new(ErrorCode::UnsupportedVersion, message))
    }
}

impl Welcome {
    /// Its frame.
    pub fn to_frame(&self) -> Frame {
        Frame::new(Kind::Welcome, codec::encode(self))
    }

    /// Reads the answer to a hello.
    ///
    /// # Errors
    /// The node's own where it refuses; `BadFrame`, `MalformedBody`, `UnsupportedVersion` where the answer makes no sense.
    pub fn from_frame(frame: &Frame) -> Result<Self, Error> {
        match frame.kind {
            Kind::Welcome => {}
            Kind::Goodbye => return Err(frame.decode_error()?),
            other => {
                return Err(Error::new(ErrorCode::BadFrame, format!("the hello was answered with a {other:?} frame")));
            }
        }
        let welcome: Self = codec::decode("Welcome", &frame.body)?;
        if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
            let message = format!("the node chose version {}, which was not offered", welcome.version);
            return Err(Error::new(ErrorCode::UnsupportedVersion, message));
        }
        Ok(welcome)
    }
}

/// Judges a hello by what the listening node knows of itself, and makes the welcome.
///
/// # Errors
/// `UnsupportedVersion`, or `WrongCluster` where the hello names another cluster.
pub fn welcome(hello: &Hello, node: &str, incarnation: u64, cluster_id: u64, groups: u32) -> Result<Welcome, Error> {
    let version = hello.negotiate()?;
    if hello.cluster_id != 0 && hello.cluster_id != cluster_id {
        let message = format!("this node is of cluster {cluster_id:016x}, the hello means {:016x}", hello.cluster_id);
        return Err(Error::new(ErrorCode::WrongCluster, message));
    }
    Ok(Welcome { version, node: node.into(), incarnation, cluster_id, groups, limits: Limits::default() })
}

#[cfg(test)]
mod tests;
