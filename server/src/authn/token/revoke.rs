//! The end of tokens: with all that descends from them, in steps of bounded size.
//!
//! A family may be of any size, a command may not. So a token that is revoked stops working at once, and everything
//! below it with it (a token lives only while its ancestors do); the rows go in this command as far as its bound reaches,
//! and the rest is left to the reaper.

use keyward_model::Table;

use super::{Token, get, put};
use crate::barrier::Draft;
use crate::engine::tree::Tree;
use crate::refusal::Refusal;

/// Most tokens and cubbyhole rows that one revocation removes, or children that it changes, in its own command.
const REVOKE_ROWS_MAX: usize = 256;

/// Ends a token and all its descendants, and removes them with their accessors, their cubbyholes and what they wrap.
/// What is too much for one command is due at once: the reaper removes it. No such token is no error.
///
/// # Errors
/// A row cannot be read.
pub fn revoke_tree(draft: &mut Draft<'_>, key: &[u8; 32]) -> Result<(), Refusal> {
    let mut left = REVOKE_ROWS_MAX;
    if !revoke_some(draft, key, &mut left)?
        && let Some((mut token, parent)) = get(draft, key)?
    {
        token.expires = Some(Token::REVOKED);
        put(draft, key, &token, &parent)?;
    }
    Ok(())
}

/// Removes a token and its descendants, the youngest generation first, until `left` tokens and cubbyhole rows are
/// removed or the command is full. Takes from `left` what it removes, and says whether the token itself is gone.
///
/// # Errors
/// A row cannot be read.
pub fn revoke_some(draft: &mut Draft<'_>, key: &[u8], left: &mut usize) -> Result<bool, Refusal> {
    let mut family = vec![key.to_vec()];
    while let Some(key) = family.last() {
        if *left == 0 || !draft.has_room(0) {
            return Ok(false);
        }
        let children = draft.keys_in_group(Table::Tokens, key, *left)?;
        if !children.is_empty() {
            family.extend(children);
        } else if remove(draft, &key.clone(), left)? {
            family.pop();
        }
    }
    Ok(true)
}

/// Removes one token that can have no children (that of a wrapped response), with what it wraps.
///
/// # Errors
/// A row cannot be read.
pub fn revoke_one(draft: &mut Draft<'_>, key: &[u8]) -> Result<(), Refusal> {
    let mut left = REVOKE_ROWS_MAX;
    remove(draft, key, &mut left).map(|_| ())
}

/// Makes orphans of a token's children, as many as one command takes, and says whether it was all of them.
///
/// # Errors
/// A row cannot be read.
pub fn adopt(draft: &mut Draft<'_>, key: &[u8]) -> Result<bool, Refusal> {
    let mut children = draft.keys_in_group(Table::Tokens, key, REVOKE_ROWS_MAX + 1)?;
    let all = children.len() <= REVOKE_ROWS_MAX;
    children.truncate(REVOKE_ROWS_MAX);
    for child in children {
        let Some((mut token, _)) = get(draft, &child)? else { continue };
        let child =
            <[u8; 32]>::try_from(child.as_slice()).map_err(|_| Refusal::internal("a token's key is too short"))?;
        token.orphan = true;
        put(draft, &child, &token, b"")?;
    }
    Ok(all)
}

/// Removes one token without children, once its cubbyhole is empty. `false` if `left` or the command was used up before.
fn remove(draft: &mut Draft<'_>, key: &[u8], left: &mut usize) -> Result<bool, Refusal> {
    let Some((token, _)) = get(draft, key)? else { return Ok(true) };
    let entries = Tree { mount: token.cubbyhole, leaves: Table::Entries };
    if !entries.clear(draft, left, |_, _, _| Ok(()))? || *left == 0 {
        return Ok(false);
    }
    let accessor = draft.keyring().accessor_hash(token.accessor.as_bytes());
    draft.remove(Table::Accessors, &accessor)?;
    draft.remove(Table::Tokens, key)?;
    draft.remove(Table::Wrapped, key)?;
    *left -= 1;
    Ok(true)
}
