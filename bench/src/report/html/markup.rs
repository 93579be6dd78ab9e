//! Text that becomes a page: tags as this program writes them, everything else escaped.
//!
//! Decides nothing about the page. Names of tags and attributes are `&'static str`, so they come from this program; what
//! may come from outside (names of brokers, commands, failures) can get in only as a text or as the value of an
//! attribute, and both are escaped here and nowhere else. Called by the rest of `html`.
//!
//! Invariant: whatever is given, the result has only the tags that this program opened.

use std::fmt::Write as _;

/// The attributes of a tag.
pub type Attributes<'a> = &'a [(&'static str, &'a str)];

/// A page, or a part of one, as far as it is written.
#[derive(Debug, Default)]
pub struct Markup(String);

impl Markup {
    /// A tag with something in it, up to the `close` that belongs to it.
    pub fn open(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.begin(tag, attributes);
        self.0.push('>');
    }

    pub fn close(&mut self, tag: &'static str) {
        let _ = writeln!(self.0, "</{tag}>");
    }

    /// A tag with only text in it.
    pub fn leaf(&mut self, tag: &'static str, attributes: Attributes<'_>, text: &str) {
        self.open(tag, attributes);
        self.text(text);
        self.close(tag);
    }

    /// A tag with nothing in it. The slash is for SVG; in HTML it means nothing.
    pub fn empty(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.begin(tag, attributes);
        self.0.push_str("/>\n");
    }

    pub fn text(&mut self, text: &str) {
        escape(&mut self.0, text);
    }

    /// What this program has written itself, as it is: the style sheet, and the document's first line.
    pub fn own(&mut self, words: &'static str) {
        self.0.push_str(words);
    }

    pub fn finish(self) -> String {
        self.0
    }

    fn begin(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        let _ = write!(self.0, "<{tag}");
        for (name, value) in attributes {
            let _ = write!(self.0, " {name}=\"");
            escape(&mut self.0, value);
            self.0.push('"');
        }
    }
}

/// Replaces what has a meaning in a page, and what may not be in one at all.
fn escape(page: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            '\n' | '\t' => page.push(character),
            // A log may have a terminal's colours in it. Neither they nor overriding the direction of writing is wanted.
            _ if character.is_control() || is_directional(character) => page.push('\u{fffd}'),
            _ => page.push(character),
        }
    }
}

/// Characters that show the text after them in another order than it is in.
fn is_directional(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_opens_no_tag_and_ends_no_attribute() {
        let mut page = Markup::default();
        let evil = "</b><script>alert(\"1\")</script> & ' onload='x";
        page.leaf("b", &[("title", evil)], evil);
        let text = page.finish();
        let escaped = "&lt;/b&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39; onload=&#39;x";
        assert_eq!(text, format!("<b title=\"{escaped}\">{escaped}</b>\n"));
    }

    #[test]
    fn what_a_terminal_would_obey_is_replaced_and_letters_stay() {
        let mut page = Markup::default();
        page.text("\u{1b}[31mred\u{0}\u{202e} größer 温\n");
        assert_eq!(page.finish(), "\u{fffd}[31mred\u{fffd}\u{fffd} größer 温\n");
    }
}
