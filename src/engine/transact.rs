//! Transactions that a closure runs: they commit, roll back, or run again after a deadlock.

use super::{Engine, Ticket, Transaction};
use crate::durability::Durability;
use crate::error::Error;
use crate::machine::StateMachine;

impl<M: StateMachine> Engine<M> {
    /// Runs a closure in a transaction and commits it, with the default durability.
    ///
    /// If the closure returns an error or panics, the transaction is rolled back. The error may be
    /// of any type that an [`Error`] converts into: [`Error`] itself,
    /// [`ExecuteError`](crate::ExecuteError), an error of your own, or a boxed one.
    ///
    /// If the transaction is the victim of a deadlock, the closure runs again in a new transaction,
    /// whatever it returned. The new transaction keeps the old age, so that it succeeds in the end.
    /// So the closure may run several times, and its other side effects are repeated.
    ///
    /// The closure should read and write by the transaction alone. A call of the engine is no part of
    /// the transaction. On this thread, a call that would wait for locks of the transaction fails at
    /// once with [`Error::SelfDeadlock`]; on another thread, it fails after
    /// [`lock_timeout`](crate::Options::lock_timeout).
    ///
    /// When it returns `Ok`, the transaction survives what the durability promises.
    ///
    /// ```
    /// use seawal::{Engine, Error, kv::Kv};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = Engine::<Kv>::open(dir.path())?;
    /// let taken = store.transact(|tx| {
    ///     let stock = tx.get_for_update("stock")?.map_or(0, |value| value[0]);
    ///     let Some(rest) = stock.checked_sub(1) else { return Ok(false) };
    ///     tx.insert("stock", [rest])?;
    ///     Ok::<_, Error>(true)
    /// })?;
    /// assert!(!taken);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What the closure returns, once the rollback is done; and those of
    /// [`Transaction::rollback`] and [`Transaction::commit`].
    pub fn transact<T, E: From<Error>>(&self, run: impl FnMut(&Transaction<M>) -> Result<T, E>) -> Result<T, E> {
        self.transact_with(self.shared().options.durability, run)
    }

    /// As [`Engine::transact`], with this durability.
    ///
    /// # Errors
    /// As [`Engine::transact`].
    pub fn transact_with<T, E: From<Error>>(
        &self,
        durability: Durability,
        run: impl FnMut(&Transaction<M>) -> Result<T, E>,
    ) -> Result<T, E> {
        let (tx, value) = self.run_transaction(run)?;
        tx.commit_with(durability)?;
        Ok(value)
    }

    /// As [`Engine::transact`], but returns a ticket for the closure's value, without waiting for
    /// the device. When it returns, the transaction is committed and others see its effects, but
    /// nothing of it survives power loss until the ticket is done.
    ///
    /// ```
    /// use seawal::{Engine, Error, kv::Kv};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = Engine::<Kv>::open(dir.path())?;
    /// let ticket = store.transact_submit(|tx| tx.insert("apple", "red"))?;
    /// assert_eq!(ticket.wait()?, None); // survives power loss from here on
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Engine::transact`].
    pub fn transact_submit<T, E: From<Error>>(
        &self,
        run: impl FnMut(&Transaction<M>) -> Result<T, E>,
    ) -> Result<Ticket<T>, E> {
        self.transact_submit_with(self.shared().options.durability, run)
    }

    /// As [`Engine::transact_submit`], with this durability.
    ///
    /// # Errors
    /// As [`Engine::transact`].
    pub fn transact_submit_with<T, E: From<Error>>(
        &self,
        durability: Durability,
        run: impl FnMut(&Transaction<M>) -> Result<T, E>,
    ) -> Result<Ticket<T>, E> {
        let (tx, value) = self.run_transaction(run)?;
        Ok(tx.submit_value(durability, value)?)
    }

    /// Runs the closure until its transaction is not the victim of a deadlock. Returns the
    /// transaction, still open, with the closure's value. After an error, it is rolled back.
    fn run_transaction<T, E: From<Error>>(
        &self,
        mut run: impl FnMut(&Transaction<M>) -> Result<T, E>,
    ) -> Result<(Transaction<M>, T), E> {
        let age = self.shared().next_owner_id();
        loop {
            let tx = self.begin_aged(age)?;
            let running = tx.enter_closure();
            let outcome = run(&tx);
            drop(running);
            // The closure may have converted the conflict into an error of its own, or ignored it.
            if tx.lost_deadlock() {
                continue;
            }
            match outcome {
                Ok(value) => return Ok((tx, value)),
                Err(error) => {
                    tx.rollback()?;
                    return Err(error);
                }
            }
        }
    }
}
