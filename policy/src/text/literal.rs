//! Quoted strings and heredocs of HCL version 1 to the text that they stand for.

/// The text that a string token stands for, its quotes and escapes undone; `None` if it is not a whole string.
pub(super) fn unquote(token: &str) -> Option<String> {
    let inner = token.strip_prefix('"')?.strip_suffix('"').filter(|_| token.len() > 1)?;
    let mut out = Vec::with_capacity(inner.len());
    let mut utf8 = [0; 4];
    let mut chars = inner.chars();
    let mut braces = 0u32;
    while let Some(c) = chars.next() {
        match c {
            '$' if braces == 0 && chars.as_str().starts_with('{') => {
                chars.next();
                braces = 1;
                out.extend(b"${");
                continue;
            }
            '{' if braces > 0 => braces += 1,
            '}' if braces > 0 => braces -= 1,
            '\\' if braces == 0 => {
                let (digits, base) = match chars.next()? {
                    'a' => (0, 7),
                    'b' => (0, 8),
                    'f' => (0, 12),
                    'n' => (0, 10),
                    'r' => (0, 13),
                    't' => (0, 9),
                    'v' => (0, 11),
                    c @ ('\\' | '"') => (0, u32::from(c)),
                    c @ '0'..='7' => {
                        let octal = chars.as_str().get(..2)?;
                        chars.nth(1);
                        out.push(u8::try_from(c.to_digit(8)? * 64 + u32::from_str_radix(octal, 8).ok()?).ok()?);
                        continue;
                    }
                    'x' => (2, 16),
                    'u' => (4, 16),
                    'U' => (8, 16),
                    _ => return None,
                };
                if digits == 0 {
                    out.extend(char::from_u32(base)?.encode_utf8(&mut utf8).bytes());
                    continue;
                }
                let code = u32::from_str_radix(chars.as_str().get(..digits)?, base).ok()?;
                chars.nth(digits - 1);
                if digits == 2 {
                    out.push(u8::try_from(code).ok()?);
                } else {
                    out.extend(char::from_u32(code)?.encode_utf8(&mut utf8).bytes());
                }
                continue;
            }
            _ => {}
        }
        out.extend(c.encode_utf8(&mut utf8).bytes());
    }
    if braces > 0 { None } else { String::from_utf8(out).ok() }
}

/// The lines of a heredoc token. After `<<-` the indentation of the last line is taken off all, if all have it.
pub(super) fn heredoc_text(token: &str) -> String {
    let body = token.split_once('\n').map_or("", |(_, body)| body);
    let last = body.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
    let (lines, anchor) = body.split_at(last);
    let indent = anchor.get(..anchor.len() - anchor.trim_start_matches([' ', '\t']).len()).unwrap_or_default();
    if token.starts_with("<<-") && !indent.is_empty() && lines.lines().all(|line| line.starts_with(indent)) {
        return lines.split_inclusive('\n').map(|line| line.strip_prefix(indent).unwrap_or(line)).collect();
    }
    lines.to_owned()
}
