//! Identifiers: each kind of number has its own type.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $hex:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// The id with this number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            /// As a number, or as text where messages show hexadecimal digits.
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if $hex { serializer.collect_str(self) } else { serializer.serialize_u64(self.0) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if $hex { write!(f, "{:016x}", self.0) } else { write!(f, "{}", self.0) }
            }
        }
    };
}

id!(
    /// Log sequence number: a position in the log, in bytes from its beginning. It is never reused.
    /// A record's LSN is where it starts; a durable LSN is the end of what is durable.
    Lsn,
    false
);
id!(
    /// Counts the segments of a store, from 1.
    SegmentId,
    false
);
id!(
    /// Counts the opens of a store, from 1.
    Epoch,
    false
);
id!(
    /// A store's random id, which each of its files holds.
    StoreId,
    true
);
id!(
    /// A transaction's id: the LSN of its first record.
    TxnId,
    false
);

impl Lsn {
    /// The position before everything.
    pub const ZERO: Lsn = Lsn(0);

    /// The position `bytes` further on. It saturates at the highest position.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }

    /// The number of bytes from `earlier` to this position, or 0 if `earlier` is not earlier.
    pub const fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl TxnId {
    /// The LSN of the transaction's first record.
    pub const fn first_lsn(self) -> Lsn {
        Lsn(self.0)
    }
}

impl From<Lsn> for TxnId {
    fn from(first: Lsn) -> TxnId {
        TxnId(first.0)
    }
}

/// The longest name of a machine, in bytes.
pub const MAX_MACHINE_NAME_BYTES: usize = 64;

/// What the records of a log mean: the name and version of the machine that wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MachineTag {
    /// The machine's name, at most [`MAX_MACHINE_NAME_BYTES`] long.
    pub name: String,
    /// Its version.
    pub version: u32,
}
