//! Messages from channels, for as long as somebody wants them. Start at [`Subscription::next`].

use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::PATIENCE;
use super::connection::Target;
use crate::harness::Outcome;

/// How many messages may wait for their reader. One that is slower is cut off and subscribes again:
/// it misses messages, but it does not fill the memory.
const QUEUE_MAX: usize = 1024;
/// How long after an outage it is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub channel: String,
    pub payload: Vec<u8>,
}

/// Ends when it is dropped.
pub struct Subscription {
    messages: mpsc::Receiver<Message>,
    task: JoinHandle<()>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscription {
    pub(super) async fn start(target: Target, channels: Vec<String>) -> Outcome<Self> {
        let first = listen(&target, &channels).await?;
        let (queue, messages) = mpsc::channel(QUEUE_MAX);
        Ok(Self { messages, task: tokio::spawn(keep(target, channels, first, queue)) })
    }

    /// The next message. After an outage it goes on by itself; what was published meanwhile is lost.
    pub async fn next(&mut self) -> Option<Message> {
        self.messages.recv().await
    }
}

/// Passes messages on and subscribes again when the connection has ended.
async fn keep(target: Target, channels: Vec<String>, mut heard: PubSub, queue: mpsc::Sender<Message>) {
    loop {
        pass(heard, &queue).await;
        // Not before the reader has read something.
        let Ok(_room) = queue.reserve().await else { return };
        let mut pause = FIRST_PAUSE;
        heard = loop {
            if let Ok(heard) = listen(&target, &channels).await {
                break heard;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
    }
}

async fn listen(target: &Target, channels: &[String]) -> Outcome<PubSub> {
    let mut heard = target.listen().await?;
    let confirmed = async {
        for channel in channels {
            if channel.contains('*') {
                heard.psubscribe(channel).await?;
            } else {
                heard.subscribe(channel).await?;
            }
        }
        Outcome::Ok(())
    };
    tokio::time::timeout(PATIENCE, confirmed).await??;
    Ok(heard)
}

/// Until the connection ends, or the reader has fallen too far behind.
async fn pass(heard: PubSub, queue: &mpsc::Sender<Message>) {
    let mut messages = heard.into_on_message();
    while let Some(message) = messages.next().await {
        let channel = message.get_channel_name().to_owned();
        let message = Message { channel, payload: message.get_payload_bytes().to_vec() };
        if queue.try_send(message).is_err() {
            return;
        }
    }
}
