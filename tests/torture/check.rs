//! Asks a node that was started anew for everything that it has acknowledged.

use std::time::Duration;

use futures_util::future::try_join_all;
use trine_protocol::client::Client;
use trine_protocol::error::ErrorCode;

use crate::ledger::{Broken, Standing};
use crate::load::{self, HOLDER, KEYS, LEASE_MS, LOCKS, QUEUES, Shared};
use crate::wait;

/// The first answer of a node that has just begun to listen: it has to be elected, and to take its bus lease.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Longest time for a drain.
const DRAIN: Duration = Duration::from_secs(60);

/// Asks until the node does not answer that it is not ready yet.
async fn ask<T>(
    what: &str,
    mut question: impl AsyncFnMut() -> Result<T, trine_protocol::Error>,
) -> Result<T, trine_protocol::Error> {
    wait::until(what, FIRST_ANSWER, async || match question().await {
        Err(error)
            if matches!(
                error.code,
                ErrorCode::NoLeader | ErrorCode::NotLeader | ErrorCode::NotReady | ErrorCode::BusLeaseLapsed
            ) =>
        {
            None
        }
        answer => Some(answer),
    })
    .await
}

/// Reads all keys, and takes hold of all locks.
pub(crate) async fn keys_and_locks(client: &Client, ledger: &Shared) -> Result<(), Broken> {
    let keys = (0..KEYS).map(|number| async move {
        let key = load::key(number);
        let got = ask(&format!("a read of {key}"), async || client.get(&key).await).await;
        let got = got.map_err(|error| format!("{key} cannot be read: {error}"))?;
        ledger.lock().keys[number].read(&key, got.value.as_deref())
    });
    try_join_all(keys).await?;
    try_join_all((0..LOCKS).map(|number| lock(client, ledger, number))).await?;
    Ok(())
}

/// A lock that is held must know its token; one that is free must be free for the taking, under a larger token.
async fn lock(client: &Client, ledger: &Shared, number: usize) -> Result<(), Broken> {
    let lock = load::lock(number);
    let standing = ledger.lock().locks[number].standing;
    let what = format!("an answer about {lock}, which is {standing:?}");
    let wrong = |error: trine_protocol::Error| format!("{lock} is {standing:?}, but: {error}");
    match standing {
        Standing::Held(token) => {
            ask(&what, async || client.renew(&lock, HOLDER, token, LEASE_MS).await).await.map_err(wrong)?;
            Ok(())
        }
        Standing::Free => {
            let granted = ask(&what, async || client.acquire(&lock, HOLDER, LEASE_MS).await).await.map_err(wrong)?;
            ledger.lock().locks[number].granted(&lock, granted.token)
        }
        Standing::Unknown => match ask(&what, async || client.release(&lock, HOLDER, 0).await).await {
            // Whichever of the two it was, now nobody has it.
            Ok(_) => {
                ledger.lock().locks[number].released();
                Ok(())
            }
            Err(error) if error.code == ErrorCode::LockNotHeld => {
                ledger.lock().locks[number].released();
                Ok(())
            }
            Err(error) => Err(wrong(error)),
        },
    }
}

/// Takes and removes every message: nothing that was acknowledged may be missing, nothing may come that was gone.
pub(crate) async fn queues(client: &Client, ledger: &Shared) -> Result<(), Broken> {
    let started = wait::now();
    let hidden = Duration::from_millis(u64::from(load::VISIBILITY_MS) * 2);
    loop {
        let looked = wait::now();
        let all = QUEUES.map(|number| async move {
            let queue = load::queue(number);
            ask(&format!("messages of {queue}"), async || load::take(client, ledger, &queue).await).await
        });
        let taken = try_join_all(all).await.map_err(|error| format!("the queues cannot be drained: {error}"))?;
        if let Some(broken) = ledger.lock().broken.take() {
            return Err(broken);
        }
        if taken.iter().sum::<usize>() > 0 && started.elapsed() < DRAIN {
            continue;
        }
        // What was taken before the kill and not removed is hidden for a while.
        let all_is_visible = looked.duration_since(started) > hidden;
        if all_is_visible || started.elapsed() > DRAIN {
            return ledger.lock().messages.drained();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
