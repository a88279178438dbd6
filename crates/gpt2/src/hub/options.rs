//! Where the hub and its cache are, and the variables that say so.

use std::fmt;
use std::path::PathBuf;

use super::HubError;

/// Where the hub and its cache are.
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// The directory with the `models--…` directories.
    pub cache: PathBuf,
    /// The hub, or a mirror of it.
    pub endpoint: String,
    /// The access token, sent to `endpoint` and nowhere else.
    pub token: Option<String>,
    /// The file that holds the token, where there is no `token`.
    pub token_file: Option<PathBuf>,
    /// The proxy's URL.
    pub proxy: Option<String>,
    /// The hosts that the proxy is not for, comma-separated.
    pub no_proxy: Option<String>,
    /// Whether to use the cache alone.
    pub offline: bool,
}

impl HubOptions {
    /// Makes the options for the public hub, without a token, and a cache directory.
    pub fn new(cache: PathBuf) -> Self {
        Self {
            cache,
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            token_file: None,
            proxy: None,
            no_proxy: None,
            offline: false,
        }
    }

    /// Makes the options from the variables that `huggingface_hub` reads, looked up by `variable`.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` | the cache; else `$HF_HOME/hub` |
    /// | `HF_HOME` | else `$XDG_CACHE_HOME/huggingface`, else `~/.cache/huggingface` |
    /// | `HF_ENDPOINT` | a mirror of the hub |
    /// | `HF_TOKEN` | the access token |
    /// | `HF_TOKEN_PATH` | the file that holds it; else `$HF_HOME/token` |
    /// | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | when true, that file is left alone |
    /// | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | when true, no requests |
    /// | `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | also in lower case; `HTTP_PROXY` for an endpoint without TLS |
    ///
    /// True is `1`, `on`, `yes` or `true`. A variable that is set but empty counts as not set.
    ///
    /// # Errors
    ///
    /// When no variable says where the cache is, not even `HOME`.
    ///
    /// # Examples
    ///
    /// ```
    /// use gpt2::hub::HubOptions;
    ///
    /// let variables = |name: &str| (name == "HF_HOME").then(|| "/data".to_owned());
    /// let options = HubOptions::from_variables(variables)?;
    /// assert_eq!(options.cache, std::path::Path::new("/data/hub"));
    /// # Ok::<(), gpt2::hub::HubError>(())
    /// ```
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let first =
            |names: &[&str]| names.iter().filter_map(|name| variable(name)).find(|value| !value.is_empty());
        let path = |names: &[&str]| first(names).map(PathBuf::from);
        let flag = |name: &str| {
            let value = first(&[name]).unwrap_or_default().to_ascii_lowercase();
            ["1", "on", "yes", "true"].contains(&value.as_str())
        };

        let user_cache =
            || path(&["XDG_CACHE_HOME"]).or_else(|| Some(path(&["HOME", "USERPROFILE"])?.join(".cache")));
        let home = path(&["HF_HOME"]).or_else(|| Some(user_cache()?.join("huggingface")));
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let cache = path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).or_else(|| in_home("hub"));

        let mut options = Self::new(cache.ok_or(HubError::NoCacheDirectory)?);
        if let Some(endpoint) = first(&["HF_ENDPOINT"]) {
            options.endpoint = endpoint;
        }
        options.token = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]);
        if !flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            options.token_file = path(&["HF_TOKEN_PATH"]).or_else(|| in_home("token"));
        }
        let proxy = match options.endpoint.starts_with("http://") {
            true => first(&["HTTP_PROXY", "http_proxy"]),
            false => first(&["HTTPS_PROXY", "https_proxy"]),
        };
        options.proxy = proxy.or_else(|| first(&["ALL_PROXY", "all_proxy"]));
        options.no_proxy = first(&["NO_PROXY", "no_proxy"]);
        options.offline = flag("HF_HUB_OFFLINE") || flag("TRANSFORMERS_OFFLINE");
        Ok(options)
    }
}

/// Leaves out the token, the proxy, whose URL may hold a password, and one in the endpoint.
impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache, endpoint, token, token_file, proxy: _, no_proxy, offline } = self;
        f.debug_struct("HubOptions")
            .field("cache", cache)
            .field("endpoint", &without_password(endpoint))
            .field("token", &token.as_ref().map(|_| "…"))
            .field("token_file", token_file)
            .field("no_proxy", no_proxy)
            .field("offline", offline)
            .finish_non_exhaustive()
    }
}

/// Returns a URL without the user and password that it may have.
pub(super) fn without_password(url: &str) -> String {
    let start = url.find("://").map_or(0, |scheme| scheme + "://".len());
    match url.rfind('@') {
        Some(at) if at >= start => format!("{}…{}", &url[..start], &url[at..]),
        _ => url.to_owned(),
    }
}
