//! The path of a Unix-domain socket, which listeners and upstreams write in one way.

use std::path::{Path, PathBuf};

/// Longest path of a socket: `sun_path` of Linux without the zero that ends it.
const MAX: usize = 107;

/// The file that the text behind `unix:` names.
///
/// Abstract sockets (`@name`) have no file, so nobody's permissions keep anyone out. A zero byte would end the path for
/// the kernel, which would then make another file than the one that stands here.
pub(super) fn parse(text: &str, folder: &Path) -> Result<PathBuf, String> {
    let is_file = !text.is_empty() && !text.starts_with('@') && !text.starts_with("//") && !text.ends_with('/');
    if !is_file || text.contains('\0') {
        return Err(format!("`unix:{}` names no file; expected such as `unix:/run/gate.sock`", text.escape_debug()));
    }
    let path = folder.join(text);
    let length = path.as_os_str().len();
    if length > MAX {
        return Err(format!(
            "the path of a socket has at most {MAX} bytes, its folder included, and this one has {length}; shorten it"
        ));
    }
    Ok(path)
}
