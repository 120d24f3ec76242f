//! Transactions.

#[cfg_attr(not(test), expect(dead_code, reason = "transactions are what will take these locks"))]
mod locks;
