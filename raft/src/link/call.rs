//! An outgoing link: questions go out in order, many at a time; answers find their way back by number.
//!
//! The connection is made when there is something to say, and made again after a pause when it broke. Whoever asks while
//! nobody can be reached is told so at once: a dead node costs no time and next to no work.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Dialer;
use super::frame::{Kind, Wire};
use super::message::{Hello, VERSION, VERSION_MIN, Welcome};

/// How long dialling and the greeting may take together.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// The pause after the first failure; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Questions that may wait for a place on the wire.
const WAITING_MAX: usize = 256;
/// Questions that may be unanswered.
const OPEN_MAX: usize = 1024;
/// Bytes that may wait on the wire before the next question is taken.
const BACKLOG_BYTES_MAX: usize = 4 << 20;
/// Heartbeats of silence, with a question open, after which a link is taken for dead.
const SILENT_BEATS: u32 = 3;
/// What a link carries at the least, before silence is held against it: a ping waits behind all that was asked before,
/// in buffers that nobody here sees.
const BYTES_PER_MS: u64 = 256;

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum CallError {
    /// It was never sent: nobody could be reached.
    Unreachable(String),
    /// It may have arrived; the link broke, or the answer did not come in time.
    Broken(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for CallError {}

/// A link to one node. Clones are the same link; [`Link::close`] ends it.
#[derive(Clone)]
pub(crate) struct Link {
    calls: mpsc::Sender<Call>,
    again: Arc<Mutex<Instant>>,
    task: AbortHandle,
}

/// Whom a link reaches, and how.
pub(crate) struct Target {
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) address: String,
    /// The greeting; asked for anew at each connection.
    pub(crate) hello: Box<dyn Fn() -> Hello + Send + Sync>,
    /// Called when the node says that this one was removed.
    pub(crate) removed: Box<dyn Fn() + Send + Sync>,
    /// Between two heartbeats.
    pub(crate) beat: Duration,
}

/// The other node says that this one was removed.
#[derive(Debug, thiserror::Error)]
#[error("it says that this node was removed")]
struct Removed;

struct Call {
    kind: Kind,
    body: Vec<u8>,
    until: Instant,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
}

/// An answer that is to come.
pub(crate) struct Answer(oneshot::Receiver<Result<Bytes, CallError>>);

impl Future for Answer {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or_else(|_| Err(CallError::Broken("the link was closed".to_owned()))))
    }
}

impl Link {
    /// A link that connects when it is first used. Must be made on the runtime that it shall live on.
    pub(crate) fn new(target: Target) -> Self {
        let (calls, queue) = mpsc::channel(WAITING_MAX);
        let again = Arc::new(Mutex::new(Instant::now()));
        let caller = Caller { target, queue, again: Arc::clone(&again), pause: PAUSE_MIN };
        Self { calls, again, task: tokio::spawn(caller.run()).abort_handle() }
    }

    /// Asks; questions arrive in the order in which they are asked. The answer comes within `patience`, or an error.
    pub(crate) fn call(&self, kind: Kind, body: Vec<u8>, patience: Duration) -> Answer {
        let (answer, receiver) = oneshot::channel();
        let call = Call { kind, body, until: Instant::now() + patience, answer };
        if let Err(error) = self.calls.try_send(call) {
            error.into_inner().fail(&CallError::Unreachable("too many questions wait for the link".to_owned()));
        }
        Answer(receiver)
    }

    /// The node gave a sign of life: the next question need not wait for the pause to end.
    pub(crate) fn wake(&self) {
        *self.again.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Ends the link at once.
    pub(crate) fn close(&self) {
        self.task.abort();
    }
}

impl Call {
    fn fail(self, error: &CallError) {
        drop(self.answer.send(Err(error.clone())));
    }
}

/// Connects and greets.
///
/// # Errors
/// The node cannot be reached, or does not want this one.
pub(crate) async fn connect(dialer: &dyn Dialer, address: &str, hello: Hello) -> io::Result<Wire> {
    let greet = async {
        let mut wire = Wire::new(dialer.dial(hello.to, address).await?);
        wire.ask(Kind::Hello, 0, &hello.encode());
        let frame = wire.next().await?;
        let welcome = (frame.kind == Kind::Hello && frame.is_answer).then(|| Welcome::decode(&frame.body)).flatten();
        let refused = |why: &str| Err(io::Error::new(io::ErrorKind::ConnectionRefused, why.to_owned()));
        match welcome {
            Some(Welcome::Yes(version)) if (VERSION_MIN..=VERSION).contains(&version) => Ok(wire),
            Some(Welcome::Yes(_) | Welcome::OtherVersion) => refused("it speaks another version of keyward"),
            Some(Welcome::OtherNode) => refused("another node answers at this address"),
            Some(Welcome::NotMember) => refused("it does not know this node as a member"),
            Some(Welcome::Removed) => Err(io::Error::new(io::ErrorKind::PermissionDenied, Removed)),
            None => refused("it did not answer the greeting"),
        }
    };
    timeout(CONNECT_MAX, greet).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The task behind a link.
struct Caller {
    target: Target,
    queue: mpsc::Receiver<Call>,
    again: Arc<Mutex<Instant>>,
    pause: Duration,
}

impl Caller {
    async fn run(mut self) {
        while let Some(call) = self.queue.recv().await {
            if Instant::now() < *self.again.lock().unwrap_or_else(PoisonError::into_inner) {
                call.fail(&CallError::Unreachable("it could not be reached a moment ago".to_owned()));
                continue;
            }
            let mut waiting = VecDeque::from([call]);
            match self.connect(&mut waiting).await {
                Ok(wire) => self.exchange(wire, waiting).await,
                Err(error) => {
                    if error.get_ref().is_some_and(|error| error.is::<Removed>()) {
                        (self.target.removed)();
                    }
                    let error = CallError::Unreachable(error.to_string());
                    waiting.into_iter().for_each(|call| call.fail(&error));
                    self.rest();
                }
            }
        }
    }

    fn rest(&mut self) {
        *self.again.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Connects, and takes what is asked meanwhile.
    async fn connect(&mut self, waiting: &mut VecDeque<Call>) -> io::Result<Wire> {
        let hello = (self.target.hello)();
        let mut connecting = std::pin::pin!(connect(&*self.target.dialer, &self.target.address, hello));
        loop {
            tokio::select! {
                wire = &mut connecting => return wire,
                Some(call) = self.queue.recv(), if waiting.len() < WAITING_MAX => waiting.push_back(call),
            }
        }
    }

    /// Sends questions and hands out answers until the link breaks.
    async fn exchange(&mut self, wire: Wire, waiting: VecDeque<Call>) {
        let mut talk =
            Talk { wire, open: BTreeMap::new(), next_id: 0, heard: Instant::now(), pinged: false, taken: 0, due: 0 };
        waiting.into_iter().for_each(|call| talk.ask(call));
        let mut tick = interval(self.target.beat / 2);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let error = loop {
            let has_room = talk.open.len() < OPEN_MAX && talk.wire.backlog() < BACKLOG_BYTES_MAX;
            let went = tokio::select! {
                frame = talk.wire.next() => match frame {
                    Ok(frame) if frame.is_answer => {
                        talk.hear(frame.id, frame.body);
                        self.pause = PAUSE_MIN;
                        Ok(())
                    }
                    Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a question on a link for answers")),
                    Err(error) => Err(error),
                },
                call = self.queue.recv(), if has_room => match call {
                    Some(call) => {
                        talk.ask(call);
                        Ok(())
                    }
                    None => return,
                },
                _ = tick.tick(), if !talk.open.is_empty() => talk.check(self.target.beat),
            };
            if let Err(error) = went {
                break error;
            }
        };
        let error = CallError::Broken(error.to_string());
        talk.open.into_values().for_each(|call| drop(call.answer.send(Err(error.clone()))));
        self.rest();
    }
}

/// A connection in use.
struct Talk {
    wire: Wire,
    open: BTreeMap<u64, Open>,
    next_id: u64,
    /// When something was last heard, or when there was last nothing to wait for.
    heard: Instant,
    pinged: bool,
    /// What the connection had taken at the last look.
    taken: u64,
    /// Bytes of the questions that are open.
    due: u64,
}

struct Open {
    bytes: u64,
    until: Instant,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
}

impl Talk {
    fn ask(&mut self, call: Call) {
        if call.answer.is_closed() {
            return; // who asked waits no more, and it was never sent
        }
        if self.open.is_empty() {
            self.heard = Instant::now();
        }
        self.next_id += 1;
        self.wire.ask(call.kind, self.next_id, &call.body);
        let bytes = call.body.len() as u64;
        self.due += bytes;
        self.open.insert(self.next_id, Open { bytes, until: call.until, answer: call.answer });
    }

    fn hear(&mut self, id: u64, body: Bytes) {
        (self.heard, self.pinged) = (Instant::now(), false);
        if let Some(open) = self.open.remove(&id) {
            self.due -= open.bytes;
            drop(open.answer.send(Ok(body)));
        }
    }

    /// Looks whether anybody is there. A slow disk may delay an answer; only a dead node or link delays the one to a ping,
    /// or else a slow link all that is before it, and that link still takes bytes.
    fn check(&mut self, beat: Duration) -> io::Result<()> {
        let now = Instant::now();
        // WHY: only while more waits. What goes into a buffer with room says nothing of the other side.
        if self.wire.taken() > self.taken && self.wire.backlog() > 0 {
            self.heard = now;
        }
        self.taken = self.wire.taken();
        let silence = now - self.heard;
        if silence >= beat * SILENT_BEATS + Duration::from_millis(self.due / BYTES_PER_MS) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the other node fell silent"));
        }
        if silence >= beat && !self.pinged {
            self.pinged = true;
            self.wire.ask(Kind::Ping, 0, &[]);
        }
        if self.open.values().any(|open| open.until < now) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the other node did not answer in time"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::PoisonError;

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::super::{Connection, Dialing};
    use super::*;

    /// Hands out one connection.
    struct Once(Mutex<Option<DuplexStream>>);

    impl Dialer for Once {
        fn dial<'a>(&'a self, _node: u64, _address: &'a str) -> Dialing<'a> {
            let near = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            Box::pin(async move {
                let near: Box<dyn Connection> = Box::new(near.ok_or(io::ErrorKind::ConnectionRefused)?);
                Ok(near)
            })
        }
    }

    /// A link with a heartbeat of 20 ms, and its other end, which has read nothing but the greeting.
    async fn link() -> (Link, DuplexStream) {
        use super::super::message::Lane;
        let (near, far) = duplex(16 << 10);
        let dialer = Arc::new(Once(Mutex::new(Some(near))));
        let hello = || Hello { versions: (VERSION_MIN, VERSION), lane: Lane::Log, from: 1, to: 2, member_since: 0 };
        let beat = Duration::from_millis(20);
        let link = Link::new(Target {
            dialer,
            address: String::new(),
            hello: Box::new(hello),
            removed: Box::new(|| {}),
            beat,
        });
        (link, far)
    }

    /// Answers the greeting, byte by byte: the stream goes on without a wire.
    async fn greet(far: &mut DuplexStream) {
        use tokio::io::AsyncWriteExt;
        let mut head = [0; 13];
        far.read_exact(&mut head).await.unwrap();
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        far.read_exact(&mut vec![0; length - 9]).await.unwrap();
        let body = Welcome::Yes(VERSION).encode();
        far.write_all(&u32::try_from(9 + body.len()).unwrap().to_le_bytes()).await.unwrap();
        far.write_all(&[0x81, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        far.write_all(&body).await.unwrap();
    }

    #[tokio::test]
    async fn a_slow_link_is_not_a_dead_one() {
        let (link, mut far) = link().await;
        let body = vec![7; 600 << 10];
        let answer = link.call(Kind::Append, body.clone(), Duration::from_secs(30));
        greet(&mut far).await;
        let slow = async {
            // A fifth of a second for each 100 KiB: all of it takes twenty times as long as silence may.
            let mut part = vec![0; 100 << 10];
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                far.read_exact(&mut part).await.unwrap();
            }
            far.read_exact(&mut part[..13]).await.unwrap();
            let mut wire = Wire::new(Box::new(far));
            wire.answer(Kind::Append, 1, &[1]);
            wire.flush().await.unwrap();
        };
        let (answer, ()) = tokio::join!(answer, slow);
        assert_eq!(answer, Ok(Bytes::from_static(&[1])));
    }

    #[tokio::test]
    async fn a_link_that_takes_everything_and_says_nothing_is_dead() {
        let (link, mut far) = link().await;
        let answer = link.call(Kind::Append, vec![7; 100], Duration::from_secs(30));
        greet(&mut far).await;
        let began = Instant::now();
        // New questions go on to be taken by a buffer that has room.
        let asking = async {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                drop(link.call(Kind::Append, vec![7; 100], Duration::from_secs(30)));
            }
        };
        let error = tokio::select! {
            answer = answer => answer.unwrap_err(),
            () = asking => return,
        };
        assert!(matches!(error, CallError::Broken(_)), "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        drop(far);
    }
}
