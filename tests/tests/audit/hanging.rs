//! A log that hangs, and what goes on meanwhile.

use super::*;

/// A sink that takes the first line, and hangs with the others until the test is done.
struct Hanging {
    lines: AtomicBool,
    until: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Sink for Hanging {
    fn append(&self, _line: &[u8]) -> io::Result<()> {
        if self.lines.swap(true, Ordering::SeqCst) {
            let _ended = self.until.lock().unwrap().recv();
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_account_is_ended_at_its_provider_although_the_log_hangs() {
    let (asked, mut revoked) = tokio::sync::mpsc::unbounded_channel();
    let server = Upstream::start(move |request| {
        if request.path == "/revoke" {
            asked.send(()).unwrap();
        }
        (200, "{}".to_owned())
    })
    .await;
    let agent = agent("probe", "inject", &server).await;
    with_client(&agent).await;
    let (done, until) = std::sync::mpsc::channel::<()>();
    let sink = Hanging { lines: AtomicBool::new(false), until: std::sync::Mutex::new(until) };
    let host = Host::builder(agent.host.home().clone()).audit_sink("hanging", sink).open().await.unwrap();
    let id = host.vault().connections(None).unwrap()[0].id;
    let connector = host.connector().clone();
    let disconnecting = tokio::spawn(async move { connector.disconnect(id).await });
    revoked.recv().await.unwrap();
    assert!(host.vault().connection(id).unwrap().is_none());
    drop(done);
    disconnecting.await.unwrap().unwrap();
    assert_eq!(ended(&server), [TOKEN]);
}

/// A file that takes entries, and hangs while it is shut, as one on a network disk does whose server is gone.
struct Gate {
    file: FileSink,
    shut: Arc<(Mutex<bool>, Condvar)>,
}

impl Sink for Gate {
    fn append(&self, line: &[u8]) -> io::Result<()> {
        drop(self.shut.1.wait_while(self.shut.0.lock().unwrap(), |shut| *shut).unwrap());
        self.file.append(line)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Shuts a gate until it is dropped, also where a test ends early: nothing may wait for it for good.
struct Shut(Arc<(Mutex<bool>, Condvar)>);

impl Shut {
    fn new(gate: &Arc<(Mutex<bool>, Condvar)>) -> Self {
        *gate.0.lock().unwrap() = true;
        Self(Arc::clone(gate))
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = false;
        self.0.1.notify_all();
    }
}

/// The log has two seconds; with what else there is to do, this is far more.
async fn in_time<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let work = tokio::time::timeout(Duration::from_secs(15), tokio::spawn(work));
    work.await.unwrap_or_else(|_| panic!("it is held up by the log")).unwrap()
}

fn gate(agent: &GuestAgent, name: &str) -> (Gate, Arc<(Mutex<bool>, Condvar)>) {
    let file = FileSink::open(&agent.host.home().audit().join(name).with_extension("jsonl")).unwrap().unwrap();
    let shut = Arc::new((Mutex::new(false), Condvar::new()));
    (Gate { file, shut: Arc::clone(&shut) }, shut)
}

/// A collector that has a line of a release as long as it is shut, and says that it does.
struct Slow {
    shut: Arc<(Mutex<bool>, Condvar)>,
    has_release: AtomicBool,
}

impl Sink for Slow {
    fn append(&self, line: &[u8]) -> io::Result<()> {
        if String::from_utf8_lossy(line).contains("\"kind\":\"released\"") {
            self.has_release.store(true, Ordering::SeqCst);
            drop(self.shut.1.wait_while(self.shut.0.lock().unwrap(), |shut| *shut).unwrap());
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What a request gets whose entry is on its way while this is done.
async fn meanwhile<T>(agent: &GuestAgent, work: impl AsyncFnOnce(Arc<Host>) -> T) -> (Arc<Host>, End) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let slow = Arc::new(Slow { shut: Arc::clone(&gate), has_release: AtomicBool::new(false) });
    let sink = Destination::Sink("slow".to_owned(), Arc::clone(&slow) as Arc<dyn Sink>);
    let settings = Settings { sinks: vec![sink], ..Settings::default() };
    let builder = Host::builder(agent.host.home().clone()).audit_settings(settings);
    let host = Arc::new(builder.open().await.unwrap());
    let shut = Shut::new(&gate);
    let fetching = tokio::spawn({
        let host = Arc::clone(&host);
        async move { fetch(&host).await }
    });
    while !slow.has_release.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    work(Arc::clone(&host)).await;
    drop(shut);
    (host, fetching.await.unwrap().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_ends_while_the_entry_of_a_release_is_written_gives_no_token() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    let id = agent.host.vault().connections(None).unwrap()[0].id;
    let disconnect = async |host: Arc<Host>| host.connector().disconnect(id).await.unwrap();
    let (host, end) = meanwhile(&agent, disconnect).await;
    words(end);
    assert!(server.requests().is_empty(), "a request went out with the token of what was disconnected");
    assert_eq!(entries(&host, EventKind::Released).len(), 1);
    let denied = entries(&host, EventKind::Denied);
    assert_eq!(denied.len(), 1);
    assert_eq!(denied[0].connection, Some(id.to_string()));
    assert!(denied[0].detail.as_ref().unwrap().contains("not released"), "{denied:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_replaced_while_the_entry_of_its_release_is_written_leaves_as_the_new_one_with_its_own() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    let before = agent.host.vault().connections(None).unwrap().remove(0);
    let replace = async |host: Arc<Host>| {
        let vault = host.vault();
        let ClaimOutcome::Claimed(claim) = vault.claim(before.id, before.generation).await.unwrap() else { panic!() };
        let tokens = TokenSet {
            access: AccessToken::new("the-newer-token".to_owned()),
            refresh: None,
            token_type: "Bearer".to_owned(),
            expires_in: None,
            requested_at: SystemClock::new().now(),
            scopes: None,
            api_origin: None,
            account_label: None,
            grant_ends_at: None,
        };
        vault.commit(claim, tokens).await.unwrap();
    };
    let (host, end) = meanwhile(&agent, replace).await;
    assert!(matches!(end, End::Value(_)), "{end:?}");
    let sent: Vec<_> = server.requests().into_iter().map(|request| request.headers).collect();
    assert!(format!("{sent:?}").contains("the-newer-token"), "{sent:?}");
    let released: Vec<_> = entries(&host, EventKind::Released).into_iter().map(|entry| entry.generation).collect();
    assert_eq!(released, [Some(before.generation.0), Some(before.generation.0 + 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_log_hangs_an_account_is_disconnected_and_revoked_and_no_token_leaves() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    with_client(&agent).await;
    let (sink, gate) = gate(&agent, "gate");
    let home = agent.host.home().clone();
    let host = Arc::new(Host::builder(home).audit_sink("gate", sink).open().await.unwrap());
    let id = host.vault().connections(None).unwrap()[0].id;
    let unconfirmed = unconfirmed(&host, "new", None).await;
    let shut = Shut::new(&gate);
    for _ in 0..3 {
        let host = Arc::clone(&host);
        let words = words(in_time(async move { fetch(&host).await }).await.unwrap());
        assert!(words.contains("audit"), "{words}");
    }
    assert!(server.requests().is_empty(), "a request went out unrecorded");
    let done = in_time({
        let host = Arc::clone(&host);
        async move { host.connector().disconnect(id).await }
    });
    let done = done.await;
    assert!(matches!(done, Err(ConnectError::Unrecorded { is_kept: true, .. })), "{done:?}");
    assert!(host.vault().connection(id).unwrap().is_none());
    assert_eq!(ended(&server), [TOKEN]);
    let done = in_time({
        let host = Arc::clone(&host);
        async move { host.connector().confirm(unconfirmed).await }
    });
    let done = done.await;
    assert!(matches!(done, Err(ConnectError::Unrecorded { is_kept: true, .. })), "{done:?}");
    in_time({
        let host = Arc::clone(&host);
        async move {
            host.broker().settle().await;
            host.connector().settle().await;
        }
    })
    .await;
    drop(shut);
    while host.vault().tell(host.audit()).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(entries(&host, EventKind::Disconnected).len(), 1);
    assert_eq!(entries(&host, EventKind::Confirmed).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_disconnected_and_revoked_where_the_log_hangs_as_it_is_opened() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    with_client(&agent).await;
    let (sink, gate) = gate(&agent, "gate");
    let shut = Shut::new(&gate);
    let opening = Host::builder(agent.host.home().clone()).audit_sink("gate", sink).even_if_broken();
    let host = Arc::new(in_time(opening.open()).await.unwrap());
    let words = words(
        in_time({
            let host = Arc::clone(&host);
            async move { fetch(&host).await }
        })
        .await
        .unwrap(),
    );
    assert!(words.contains("audit"), "{words}");
    let id = host.vault().connections(None).unwrap()[0].id;
    let done = host.connector().disconnect(id).await;
    assert!(matches!(done, Err(ConnectError::Unrecorded { is_kept: true, .. })), "{done:?}");
    assert_eq!(ended(&server), [TOKEN]);
    drop((host, shut));
}
