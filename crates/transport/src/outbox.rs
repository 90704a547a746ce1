//! The queue of what goes out on one link, and how it is packed into frames.
//!
//! Senders wait for room, in messages and in bytes. The other end is a stream of frames that HTTP/2 polls whenever it
//! can send: each frame takes all that waits, up to a size, so the busier the link, the fuller the frames.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use drover_wire::proto::v1;
use futures::Stream;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::options::Tuning;
use crate::stats::PeerStats;

/// The link is gone; the message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

struct Queued {
    message: v1::LinkMessage,
    bytes: usize,
    /// Room in the queue, given back when the message is taken out.
    _room: OwnedSemaphorePermit,
}

/// The sending end. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    room_bytes: usize,
}

/// Room for one message in the queue.
pub(crate) struct Slot {
    queue: mpsc::OwnedPermit<Queued>,
    room: OwnedSemaphorePermit,
}

impl Slot {
    /// Queues the message. It should not be larger than the room was made for.
    pub(crate) fn send(self, message: v1::LinkMessage) {
        let bytes = message.encoded_len();
        self.queue.send(Queued { message, bytes, _room: self.room });
    }
}

impl Outbox {
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.clamp(1, self.room_bytes)).unwrap_or(u32::MAX)
    }

    /// Waits for room for `bytes`. Consumes the handle, so that the wait can outlive its caller.
    ///
    /// # Errors
    /// If the link is gone.
    pub(crate) async fn reserve(self, bytes: usize) -> Result<Slot, Closed> {
        let permits = self.permits(bytes);
        let room = self.room.acquire_many_owned(permits).await.map_err(|_| Closed)?;
        let queue = self.queue.reserve_owned().await.map_err(|_| Closed)?;
        Ok(Slot { queue, room })
    }

    /// Room for `bytes` if there is some now.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Slot> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(self.permits(bytes)).ok()?;
        let queue = self.queue.clone().try_reserve_owned().ok()?;
        Some(Slot { queue, room })
    }

    /// Waits for room, then queues the message.
    ///
    /// # Errors
    /// If the link is gone.
    pub(crate) async fn send(&self, message: v1::LinkMessage) -> Result<(), Closed> {
        let slot = match self.try_reserve(message.encoded_len()) {
            Some(slot) => slot,
            None => self.clone().reserve(message.encoded_len()).await?,
        };
        slot.send(message);
        Ok(())
    }
}

/// Says, at the moment a message is taken out of the queue, whether it shall still be sent.
pub(crate) type Admit = Box<dyn Fn(&v1::LinkMessage) -> bool + Send + Sync>;

/// The frames that go out on one link.
pub(crate) struct Frames {
    queue: mpsc::Receiver<Queued>,
    room: Arc<Semaphore>,
    /// Taken out of the queue, but too large for the frame that was being packed.
    carried: Option<Queued>,
    frame_bytes: usize,
    admit: Admit,
    stats: Arc<PeerStats>,
}

/// A queue and its frames.
pub(crate) fn outbox(tuning: &Tuning, stats: Arc<PeerStats>, admit: Admit) -> (Outbox, Frames) {
    let (sender, queue) = mpsc::channel(tuning.queue_messages.max(1));
    let room_bytes = tuning.queue_bytes.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
    let room = Arc::new(Semaphore::new(room_bytes));
    let outbox = Outbox { queue: sender, room: Arc::clone(&room), room_bytes };
    (outbox, Frames { queue, room, carried: None, frame_bytes: tuning.frame_bytes, admit, stats })
}

impl Frames {
    fn poll_next_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Queued>> {
        loop {
            let next = match self.carried.take() {
                Some(carried) => return Poll::Ready(Some(carried)),
                None => std::task::ready!(self.queue.poll_recv(cx)),
            };
            match next {
                Some(queued) if !(self.admit)(&queued.message) => {}
                next => return Poll::Ready(next),
            }
        }
    }
}

impl Stream for Frames {
    type Item = v1::LinkFrame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut messages = Vec::new();
        let mut bytes = 0;
        while bytes < self.frame_bytes || messages.is_empty() {
            match self.poll_next_message(cx) {
                Poll::Ready(Some(queued)) if !messages.is_empty() && bytes + queued.bytes > self.frame_bytes => {
                    self.carried = Some(queued);
                    break;
                }
                Poll::Ready(Some(queued)) => {
                    bytes += queued.bytes;
                    messages.push(queued.message);
                }
                Poll::Ready(None) if messages.is_empty() => return Poll::Ready(None),
                Poll::Pending if messages.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        PeerStats::inc(&self.stats.frames_sent);
        PeerStats::add(&self.stats.messages_sent, messages.len() as u64);
        PeerStats::add(&self.stats.bytes_sent, bytes as u64);
        Poll::Ready(Some(v1::LinkFrame { messages }))
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // Wakes whoever waits for room: nothing is taken out any more.
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::{FutureExt, StreamExt};
    use proptest::prelude::*;

    use super::*;

    fn message(id: u64, bytes: usize) -> v1::LinkMessage {
        let body = v1::link_message::Body::TimestampResponse(v1::TimestampResponse {
            body: Some(v1::timestamp_response::Body::Error(Bytes::from(vec![7; bytes]))),
        });
        v1::LinkMessage { id, body: Some(body) }
    }

    fn pair(frame_bytes: usize, queue_bytes: usize, admit: Admit) -> (Outbox, Frames) {
        let tuning = Tuning { frame_bytes, queue_bytes, ..Tuning::default() };
        outbox(&tuning, Arc::default(), admit)
    }

    proptest! {
        #[test]
        fn frames_hold_every_message_once_in_order_and_are_as_full_as_their_size_allows(
            sizes in prop::collection::vec(0usize..400, 1..60), frame_bytes in 1usize..1_000,
        ) {
            let (outbox, mut frames) = pair(frame_bytes, 1 << 20, Box::new(|_| true));
            for (id, size) in sizes.iter().enumerate() {
                outbox.send(message(id as u64, *size)).now_or_never().unwrap().unwrap();
            }
            drop(outbox);
            let packed: Vec<v1::LinkFrame> = std::iter::from_fn(|| frames.next().now_or_never().unwrap()).collect();
            let ids: Vec<u64> = packed.iter().flat_map(|f| f.messages.iter().map(|m| m.id)).collect();
            prop_assert_eq!(ids, (0..sizes.len() as u64).collect::<Vec<_>>());
            let size = |frame: &v1::LinkFrame| frame.messages.iter().map(Message::encoded_len).sum::<usize>();
            for (n, frame) in packed.iter().enumerate() {
                prop_assert!(frame.messages.len() == 1 || size(frame) <= frame_bytes);
                if let Some(next) = packed.get(n + 1) {
                    prop_assert!(size(frame) + next.messages[0].encoded_len() > frame_bytes);
                }
                let decoded = v1::LinkFrame::decode(&frame.encode_to_vec()[..]).unwrap();
                prop_assert_eq!(&decoded, frame);
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_frame_or_one_without_panic(bytes: Vec<u8>) {
            let _ = v1::LinkFrame::decode(&bytes[..]);
        }
    }

    #[tokio::test]
    async fn a_full_queue_makes_its_senders_wait_until_a_frame_leaves() {
        let (outbox, mut frames) = pair(10, 100, Box::new(|_| true));
        outbox.send(message(1, 80)).await.unwrap();
        let mut second = Box::pin(outbox.send(message(2, 80)));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(frames.next().await.unwrap().messages[0].id, 1);
        second.await.unwrap();
        outbox.clone().send(message(3, 80)).now_or_never().ok_or(()).unwrap_err();
        assert_eq!(frames.next().await.unwrap().messages[0].id, 2);
        outbox.send(message(4, 1_000)).await.unwrap();
        assert_eq!(frames.next().await.unwrap().messages[0].id, 4, "a message larger than the queue passes alone");
    }

    #[tokio::test]
    async fn who_waits_for_room_on_a_lost_link_is_told() {
        let (outbox, frames) = pair(10, 100, Box::new(|_| true));
        outbox.send(message(1, 80)).await.unwrap();
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.send(message(2, 80)).await }
        });
        drop(frames);
        assert_eq!(waiting.await.unwrap(), Err(Closed));
        assert_eq!(outbox.send(message(3, 1)).await, Err(Closed));
    }

    #[tokio::test]
    async fn a_message_that_is_not_wanted_any_more_is_left_out() {
        let (outbox, mut frames) = pair(1_000, 1_000, Box::new(|m| m.id != 2));
        for id in 1..4 {
            outbox.send(message(id, 1)).await.unwrap();
        }
        let ids: Vec<u64> = frames.next().await.unwrap().messages.iter().map(|m| m.id).collect();
        assert_eq!(ids, [1, 3]);
    }
}
