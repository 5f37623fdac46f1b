//! Standing in line: a request waits for a backend to come up, or for a slot at one.
//!
//! The line itself is `pool::hold`'s; who is woken is decided there.

use std::rc::Rc;
use std::time::Instant;

use super::error::ProxyError;
use super::exchange::Exchange;
use super::forward::Attempt;
use super::message::Message;
use crate::http::timer::Wake;
use crate::live::View;
use crate::pool::Tried;

/// What a request waits for.
#[derive(Default)]
pub struct Line {
    /// The backend that it is bound to, where only that one will do.
    pub wants: Option<usize>,
    /// For a slot, not for somebody to come up.
    pub full: bool,
}

impl Attempt<'_> {
    /// Waits, its place in line kept, until it is worth trying again.
    pub async fn wait(
        &self,
        line: Line,
        exchange: &mut Exchange,
        view: &Rc<View>,
        message: &mut Message,
    ) -> Result<(), ProxyError> {
        if self.proxy.is_ending() {
            return Err(ProxyError::Cut);
        }
        // By the time that it is called, whoever has failed it may be well again.
        message.tried = Tried::default();
        let (pool, plan) = (&self.pool.pool, &self.pool.pool.plan.hold);
        let wants = line.wants.map(|place| &self.pool.posts[place].vitals);
        let ticket = match message.ticket.take() {
            Some(ticket) => {
                ticket.wants(wants);
                ticket.give_up_slot();
                ticket
            }
            None => pool.shared.hold.join(plan.max, wants).ok_or_else(|| match line.full {
                true => ProxyError::Full { pool: pool.name.to_string() },
                false => self.no_backend(),
            })?,
        };
        let now = Instant::now();
        let since = *message.held_since.get_or_insert(now);
        let ticket = message.ticket.insert(ticket);
        // Looked at only once the place in line is taken: a change before it is seen here, one
        // after it calls the ticket.
        if self.pool.is_stale() || !Rc::ptr_eq(view, &self.proxy.view()) {
            return Ok(());
        }
        self.pool.offer_slots();
        if !line.full {
            pool.shared.hurry.notify_waiters();
        }
        let timer = &exchange.call.timer;
        let left = plan.timeout.saturating_sub(now.saturating_duration_since(since));
        if left.is_zero() {
            return Err(ProxyError::HoldTimeout { pool: pool.name.to_string() });
        }
        timer.set(now, left.min(self.left(exchange, now)));
        ticket.stays();
        let called = timer.limit(ticket.called()).await;
        exchange.waited += now.elapsed();
        match called {
            Ok(()) => Ok(()),
            Err(Wake::Due) => Err(ProxyError::HoldTimeout { pool: pool.name.to_string() }),
            Err(Wake::Cut) => Err(ProxyError::Cut),
        }
    }
}
