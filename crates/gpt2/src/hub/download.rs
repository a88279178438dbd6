//! The requests to the hub, and how files reach the cache.
//!
//! ```text
//! HEAD <endpoint>/<id>/resolve/<revision>/<file>   commit, etag and size; redirects within the hub are followed
//! GET  <endpoint>/<id>/resolve/<commit>/<file>     the contents; redirects to any host are followed
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use ureq::http::uri::InvalidUri;
use ureq::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use ureq::{Agent, Body, Proxy};

use super::options::without_password;
use super::{
    ADAPTER, CONFIG, HubError, HubOptions, OTHER_FORMATS, Progress, Repository, WEIGHTS, create_parent,
    is_commit, is_name, read_line, replace,
};

/// How long the first request may take, from the look-up of the name to the answer, with all its redirects: an
/// unreachable hub shall cost less than three seconds.
const FIRST_ANSWER: Duration = Duration::from_millis(2500);
/// How long a connection, an answer, or the next bytes of one may take after that: `huggingface_hub`'s limit.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 10;
/// The most that is downloaded of a file whose size the server does not tell: all but weights are smaller, and a
/// hub tells theirs.
const MAX_UNANNOUNCED: u64 = 100_000_000;
/// Small enough for progress to be smooth, large enough for system calls not to matter.
const CHUNK: usize = 1 << 18;

/// The requests for one model at one commit.
pub(super) struct Session<'a> {
    agent: Agent,
    endpoint: Uri,
    token: Option<HeaderValue>,
    repository: &'a Repository<'a>,
    /// The commit, once known; before that the revision.
    commit: String,
}

/// A file that the hub has.
pub(super) struct RemoteFile {
    pub(super) name: String,
    /// The name of the blob: the sha256 for large files.
    etag: String,
    pub(super) size: Option<u64>,
}

impl<'a> Session<'a> {
    /// Asks for the model's configuration and with it for the commit that its revision is at.
    pub(super) fn start(
        options: &HubOptions,
        repository: &'a Repository<'a>,
    ) -> Result<(Self, RemoteFile), HubError> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(proxy(options)?)
            .user_agent(concat!("gpt2/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build()
            .into();
        let mut session = Self {
            agent,
            endpoint: endpoint(options)?,
            token: authorization(options)?,
            repository,
            commit: repository.revision.to_owned(),
        };
        let (url, response) = session.request(&Method::HEAD, CONFIG, None, Some(FIRST_ANSWER))?;
        if response.status() == StatusCode::NOT_FOUND && header(response.headers(), "x-error-code").is_none()
        {
            // A plain file server, which does not say what it is that it lacks.
            return Err(session.model_not_found());
        }
        let commit = header(response.headers(), "x-repo-commit").filter(|commit| is_commit(commit));
        let no_commit = || answer(&url, "it does not name a commit in `X-Repo-Commit`");
        // Whatever else is wrong with what is no hub's, this is the reason.
        if commit.is_none() && response.status().is_success() {
            return Err(no_commit());
        }
        let commit = commit.map(str::to_owned);
        let config = session.remote_file(CONFIG, &url, &response)?;
        session.commit = commit.ok_or_else(no_commit)?;
        match config {
            Some(config) => Ok((session, config)),
            None => Err(match session.find(ADAPTER)? {
                Some(_) => HubError::Adapter { id: session.repository.id.to_owned() },
                None => session.missing(CONFIG, "a configuration"),
            }),
        }
    }

    /// Returns the commit that this session downloads.
    pub(super) fn commit(&self) -> &str {
        &self.commit
    }

    /// Asks whether the model has a file.
    pub(super) fn find(&self, name: &str) -> Result<Option<RemoteFile>, HubError> {
        let (url, response) = self.request(&Method::HEAD, name, None, None)?;
        self.remote_file(name, &url, &response)
    }

    /// Asks for files that must be there.
    pub(super) fn require(
        &self,
        names: &[&str],
        expected: &'static str,
    ) -> Result<Vec<RemoteFile>, HubError> {
        names.iter().map(|name| self.find(name)?.ok_or_else(|| self.missing(name, expected))).collect()
    }

    /// Downloads a file, unless the cache has it, and links it into the snapshot.
    pub(super) fn land(
        &self,
        file: &RemoteFile,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        let pointer = self.repository.snapshot(&self.commit).join(&file.name);
        // What is here with another size was damaged since it was downloaded.
        let is_whole = |path: &Path| {
            fs::metadata(path)
                .is_ok_and(|found| found.is_file() && file.size.is_none_or(|size| size == found.len()))
        };
        if is_whole(&pointer) {
            return Ok(());
        }
        let blob = self.repository.folder().join("blobs").join(&file.etag);
        create_parent(&pointer)?;
        create_parent(&blob)?;
        if !is_whole(&blob) {
            let _lock = self.lock(file)?;
            // Another process may have held the lock for this very file.
            if !is_whole(&blob) {
                let partial = blob.with_file_name(format!("{}.incomplete", file.etag));
                self.download(file, &partial, progress)?;
                fs::rename(&partial, &blob).map_err(|source| HubError::file(&blob, source))?;
            }
        }
        replace(&pointer, |temporary| link(&blob, temporary))
    }

    /// Waits for the lock on a blob that `huggingface_hub` takes too.
    fn lock(&self, file: &RemoteFile) -> Result<File, HubError> {
        let folder = self.repository.cache.join(".locks").join(self.repository.folder_name());
        let path = folder.join(format!("{}.lock", file.etag));
        create_parent(&path)?;
        let lock = File::create(&path).and_then(|lock| lock.lock().map(|()| lock));
        lock.map_err(|source| HubError::file(&path, source))
    }

    /// Receives what `partial` lacks of the contents, and verifies them.
    fn download(
        &self,
        file: &RemoteFile,
        partial: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        let mut partial = Partial::open(partial)?;
        if file.size != Some(partial.received) {
            self.receive(file, &mut partial, progress)?;
        }
        partial.verify(file)
    }

    fn receive(
        &self,
        file: &RemoteFile,
        partial: &mut Partial,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        // Without a size there is no telling what is there from what is missing.
        let resumable = partial.received > 0 && file.size.is_some_and(|size| partial.received < size);
        let range = resumable.then(|| format!("bytes={}-", partial.received));
        let (url, response) = self.request(&Method::GET, &file.name, range.as_deref(), None)?;
        let resumed = header(response.headers(), "content-range")
            .is_some_and(|range| range.starts_with(&format!("bytes {}-", partial.received)));
        match response.status() {
            StatusCode::OK => partial.restart()?,
            StatusCode::PARTIAL_CONTENT if resumable && resumed => {}
            status => return Err(HubError::Status { url: address(&url), status: status.as_u16() }),
        }

        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let received = partial.received;
            progress(Progress { file: &file.name, received, total: file.size });
            let interrupted = |source| HubError::Interrupted { file: file.name.clone(), received, source };
            match body.read(&mut chunk).map_err(interrupted)? {
                0 if file.size.is_some_and(|size| received < size) => {
                    return Err(interrupted(io::ErrorKind::UnexpectedEof.into()));
                }
                0 => return Ok(()),
                count => partial.append(&chunk[..count])?,
            }
            match file.size {
                Some(size) if partial.received > size => return Ok(()),
                None if partial.received > MAX_UNANNOUNCED => {
                    partial.restart()?;
                    return Err(HubError::Endless { file: file.name.clone(), limit: MAX_UNANNOUNCED });
                }
                _ => {}
            }
        }
    }

    /// Asks for a file at this session's commit, for no longer than `limit` with all redirects.
    ///
    /// Follows redirects, but when it asks for the headers, none from one that has them to another host: that
    /// is the store of large files, which knows less about them. The token goes to the hub alone.
    pub(super) fn request(
        &self,
        method: &Method,
        name: &str,
        range: Option<&str>,
        limit: Option<Duration>,
    ) -> Result<(Uri, Response<Body>), HubError> {
        let endpoint = self.endpoint.to_string();
        let (endpoint, id) = (endpoint.trim_end_matches('/'), self.repository.id);
        let url = format!("{endpoint}/{id}/resolve/{}/{name}", self.commit.replace('/', "%2F"));
        // The other parts are short and checked.
        let too_long = |error: InvalidUri| invalid("endpoint", error.to_string());
        let mut url: Uri = url.parse().map_err(too_long)?;
        let deadline = limit.map(|limit| Instant::now() + limit);
        for _ in 0..MAX_REDIRECTS {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(unreachable(&url, ureq::Error::Io(io::ErrorKind::TimedOut.into())));
            }
            let mut request = Request::builder()
                .method(method)
                .uri(&url)
                .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if let Some(token) = self.token.as_ref().filter(|_| same_origin(&url, &self.endpoint)) {
                request = request.header(header::AUTHORIZATION, token);
            }
            if let Some(range) = range {
                request = request.header(header::RANGE, range);
            }
            let request = request.body(()).expect("method, URL and headers are valid");
            let request = self.agent.configure_request(request).timeout_global(left).build();
            let response = self.agent.run(request).map_err(|error| unreachable(&url, error))?;
            let location = header(response.headers(), "location");
            let Some(location) = location.filter(|_| response.status().is_redirection()) else {
                return Ok((url, response));
            };
            let target = redirect(&url, location)?;
            let described = response.headers().contains_key("x-linked-etag");
            if method == Method::HEAD && described && !same_origin(&url, &target) {
                return Ok((url, response));
            }
            url = target;
        }
        Err(answer(&url, format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Reads the headers that describe a file; `None` when the model does not have it.
    fn remote_file(
        &self,
        name: &str,
        url: &Uri,
        response: &Response<Body>,
    ) -> Result<Option<RemoteFile>, HubError> {
        let (id, headers) = (self.repository.id.to_owned(), response.headers());
        match (response.status().as_u16(), header(headers, "x-error-code")) {
            (200..=399, _) => {}
            (404, None) | (_, Some("EntryNotFound")) => return Ok(None),
            (_, Some("RevisionNotFound")) => {
                let revision = self.repository.revision.to_owned();
                return Err(HubError::RevisionNotFound { id, revision });
            }
            (403, _) | (_, Some("GatedRepo")) => return Err(HubError::Denied { id }),
            (401, _) | (_, Some("RepoNotFound")) => return Err(self.model_not_found()),
            (status, _) => return Err(HubError::Status { url: address(url), status }),
        }
        let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag")).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        if etag.len() > 128 || !is_name(etag) {
            return Err(answer(url, format!("`{etag}` cannot be the etag of `{name}`")));
        }
        let length = || header(headers, "content-length").filter(|_| response.status().is_success());
        let size = header(headers, "x-linked-size").or_else(length);
        let size = size
            .map(str::parse)
            .transpose()
            .map_err(|_| answer(url, format!("`{name}` has no valid size")))?;
        Ok(Some(RemoteFile { name: name.to_owned(), etag: etag.to_owned(), size }))
    }

    /// Says what the model has instead of weights that can be read.
    pub(super) fn no_weights(&self) -> HubError {
        let id = || self.repository.id.to_owned();
        let has = |name: &str| self.find(name).map(|file| file.is_some());
        let find = || {
            if has(ADAPTER)? {
                return Ok(HubError::Adapter { id: id() });
            }
            for found in OTHER_FORMATS {
                if has(found)? {
                    return Ok(HubError::OtherFormat { id: id(), found });
                }
            }
            Ok(self.missing(WEIGHTS, "that file or its index of shards"))
        };
        find().unwrap_or_else(|error| error)
    }

    fn model_not_found(&self) -> HubError {
        HubError::ModelNotFound { id: self.repository.id.to_owned(), server: origin(&self.endpoint) }
    }

    pub(super) fn missing(&self, name: &str, expected: &'static str) -> HubError {
        HubError::MissingFile { id: self.repository.id.to_owned(), name: name.to_owned(), expected }
    }
}

/// The beginning of a file, under the name of an unfinished download.
struct Partial {
    path: PathBuf,
    file: File,
    digest: Sha256,
    received: u64,
}

impl Partial {
    /// Opens the file, new or as an earlier call left it.
    fn open(path: &Path) -> Result<Self, HubError> {
        let open = || {
            let mut file =
                OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
            let (mut digest, mut received, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
            loop {
                match file.read(&mut chunk)? {
                    0 => return Ok(Self { path: path.to_owned(), file, digest, received }),
                    count => {
                        digest.update(&chunk[..count]);
                        received += count as u64;
                    }
                }
            }
        };
        open().map_err(|source| HubError::file(path, source))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(|source| HubError::file(&self.path, source))?;
        self.digest.update(bytes);
        self.received += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), HubError> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.rewind());
        cleared.map_err(|source| HubError::file(&self.path, source))?;
        self.digest = Sha256::new();
        self.received = 0;
        Ok(())
    }

    /// Checks the size, and the sha256 where the etag is one; contents that fail are cleared away.
    fn verify(mut self, file: &RemoteFile) -> Result<(), HubError> {
        let wrong_size = file.size.filter(|&size| size != self.received);
        if let Some(expected) = wrong_size {
            let found = self.received;
            self.restart()?;
            return Err(HubError::Size { file: file.name.clone(), expected, found });
        }
        if file.etag.len() == 64 {
            let found = hex(&self.digest.finalize_reset());
            if !found.eq_ignore_ascii_case(&file.etag) {
                self.restart()?;
                return Err(HubError::Digest { file: file.name.clone(), expected: file.etag.clone(), found });
            }
        }
        self.file.sync_all().map_err(|source| HubError::file(&self.path, source))
    }
}

/// Points `pointer`, in a snapshot, to a blob: by a relative link, so that the cache can be moved.
#[cfg(unix)]
fn link(blob: &Path, pointer: &Path) -> io::Result<()> {
    let name = blob.file_name().expect("a blob is named by its etag");
    std::os::unix::fs::symlink(Path::new("../../blobs").join(name), pointer)
}

/// Makes `pointer`, in a snapshot, the same file as a blob: symbolic links may need privileges here.
#[cfg(not(unix))]
fn link(blob: &Path, pointer: &Path) -> io::Result<()> {
    fs::hard_link(blob, pointer).or_else(|_| fs::copy(blob, pointer).map(|_| ()))
}

/// Returns the `Authorization` header, if there is a token.
fn authorization(options: &HubOptions) -> Result<Option<HeaderValue>, HubError> {
    let token = match (&options.token, &options.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => match read_line(path) {
            Ok(token) => token,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(HubError::file(path, source)),
        },
        (None, None) => return Ok(None),
    };
    if token.trim().is_empty() {
        return Ok(None);
    }
    let header = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
    let mut header = header.map_err(|error| invalid("token", error.to_string()))?;
    header.set_sensitive(true);
    Ok(Some(header))
}

fn proxy(options: &HubOptions) -> Result<Option<Proxy>, HubError> {
    let Some(url) = &options.proxy else { return Ok(None) };
    let build = || {
        let proxy = Proxy::new(url)?;
        let mut builder = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
        if let Some(username) = proxy.username() {
            builder = builder.username(username);
        }
        if let Some(password) = proxy.password() {
            builder = builder.password(password);
        }
        let exempt = options.no_proxy.iter().flat_map(|hosts| hosts.split(','));
        exempt.fold(builder, |builder, host| builder.no_proxy(host.trim())).build()
    };
    build().map(Some).map_err(|error: ureq::Error| invalid("proxy", error.to_string()))
}

fn endpoint(options: &HubOptions) -> Result<Uri, HubError> {
    let wrong = || {
        let found = without_password(&options.endpoint);
        invalid("endpoint", format!("expected a URL such as `https://host`, found `{found}`"))
    };
    let endpoint: Uri = options.endpoint.parse().map_err(|_| wrong())?;
    let usable = matches!(endpoint.scheme_str(), Some("http" | "https")) && endpoint.query().is_none();
    if usable { Ok(endpoint) } else { Err(wrong()) }
}

/// Returns where a redirect leads; a step down from `https` to `http` is refused.
fn redirect(from: &Uri, location: &str) -> Result<Uri, HubError> {
    let absolute = match location {
        path if path.starts_with("//") => format!("{}:{path}", from.scheme_str().unwrap_or_default()),
        path if path.starts_with('/') => origin(from) + path,
        url => url.to_owned(),
    };
    let target = absolute.parse().ok().filter(|target: &Uri| match target.scheme_str() {
        Some("https") => true,
        Some("http") => from.scheme_str() == Some("http"),
        _ => false,
    });
    target.ok_or_else(|| {
        let shown = without_password(location.split('?').next().unwrap_or_default());
        answer(from, format!("it redirects to `{shown}`"))
    })
}

/// Returns a URL as it can be shown: without a password, and without a query, which may hold a signature.
pub(super) fn address(url: &Uri) -> String {
    origin(url) + url.path()
}

/// Returns scheme, host and port of a URL, and leaves out a password.
fn origin(url: &Uri) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme_str().unwrap_or_default(), url.host().unwrap_or_default())
}

fn same_origin(left: &Uri, right: &Uri) -> bool {
    origin(left).eq_ignore_ascii_case(&origin(right))
}

pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn invalid(option: &'static str, reason: String) -> HubError {
    HubError::InvalidOption { option, reason }
}

fn unreachable(url: &Uri, error: ureq::Error) -> HubError {
    HubError::Unreachable { server: origin(url), source: Box::new(error) }
}

pub(super) fn answer(url: &Uri, reason: impl Into<String>) -> HubError {
    HubError::Answer { url: address(url), reason: reason.into() }
}
