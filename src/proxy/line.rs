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
use crate::pool::hold::Line;

impl Attempt<'_> {
    /// Waits, its place in line kept, until it is worth trying again.
    pub async fn wait(
        &self,
        line: Line,
        exchange: &mut Exchange,
        view: &Rc<View>,
        message: &mut Message,
    ) -> Result<(), ProxyError> {
        let (pool, plan) = (&self.pool.pool, &self.pool.pool.plan.hold);
        let ticket = self.pool.stand(message.ticket.take(), line).ok_or_else(|| match line.full {
            true => ProxyError::Full { pool: pool.name.to_string() },
            false => self.no_backend(),
        })?;
        // Whom it found down may have come up since, and a reload moves places.
        let tried = std::mem::take(&mut message.tried);
        let news = !line.behind && self.pool.is_news_to(&tried);
        let now = Instant::now();
        let since = *message.held_since.get_or_insert(now);
        let ticket = message.ticket.insert(ticket);
        // Looked at only once the place in line is taken: a change before it is seen here, one
        // after it calls the ticket.
        if news || self.pool.is_stale() || !Rc::ptr_eq(view, &self.proxy.view()) {
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
        let called = timer.limit(ticket.called()).await;
        exchange.waited += now.elapsed();
        match called {
            Ok(()) => Ok(()),
            Err(Wake::Due) => Err(ProxyError::HoldTimeout { pool: pool.name.to_string() }),
            Err(Wake::Cut) => Err(ProxyError::Cut),
        }
    }
}
