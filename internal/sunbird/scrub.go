package sunbird

import (
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxMessage caps the words of a service: a dead letter's header holds no
	// more.
	maxMessage = 2 << 10
	// looseLength is the number of letters from which a value is struck out
	// wherever it stands; a shorter one only as a word of its own, or a learner
	// called Ram would take letters out of "program".
	looseLength = 5
	struck      = "…"
)

// values asks for what was sent; a call that says nothing of it sent nothing of
// a person.
func values(sent func() []string) []string {
	if sent == nil {
		return nil
	}
	return sent()
}

// Scrub makes a service's words fit to be kept and shown: the values that we
// sent are struck out, in any case of letters and in the escapes a service may
// have printed them with, white space is folded, and the rest is cut to 2 KiB.
// A value of several words is struck out as a whole and word by word, since a
// service may repeat only part of a name.
func Scrub(text string, sent ...string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "\uFFFD")), " ")
	if len(text) > 16*maxMessage {
		text = cut(text, 16*maxMessage) // enough for the cut below, little enough to search
	}
	for _, value := range spellings(sent) {
		text = strike(text, value)
	}
	return cut(text, maxMessage)
}

// spellings lists what to look for, longest first, so that a part does not break
// up the whole that contains it.
func spellings(sent []string) []string {
	var values []string
	for _, value := range sent {
		words := strings.Fields(value)
		values = append(values, strings.Join(words, " "))
		if len(words) > 1 {
			values = append(values, words...)
		}
	}
	var all []string
	for _, value := range values {
		if utf8.RuneCountInString(value) < 2 {
			continue // an initial gives nobody away
		}
		all = append(all, value, url.PathEscape(value), url.QueryEscape(value), html.EscapeString(value))
		if quoted, err := json.Marshal(value); err == nil {
			all = append(all, unquoted(string(quoted)))
		}
		// \u0906 and so on, as a printer that keeps to ASCII writes.
		all = append(all, unquoted(strconv.QuoteToASCII(value)))
	}
	slices.SortFunc(all, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(all)
}

func unquoted(text string) string { return text[1 : len(text)-1] }

func strike(text, value string) string {
	pattern, err := regexp.Compile("(?i)" + regexp.QuoteMeta(value))
	if err != nil {
		return strings.ReplaceAll(text, value, struck)
	}
	loose := utf8.RuneCountInString(value) >= looseLength
	var b strings.Builder
	end := 0
	for _, at := range pattern.FindAllStringIndex(text, -1) {
		if !loose && !wordAlone(text, at[0], at[1]) {
			continue
		}
		b.WriteString(text[end:at[0]])
		b.WriteString(struck)
		end = at[1]
	}
	b.WriteString(text[end:])
	return b.String()
}

func wordAlone(text string, from, to int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:from])
	after, _ := utf8.DecodeRuneInString(text[to:])
	return !inWord(before) && !inWord(after)
}

func inWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) }

// cut shortens a text to a number of bytes without breaking a letter.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	text = text[:limit]
	for text != "" {
		if r, size := utf8.DecodeLastRuneInString(text); r != utf8.RuneError || size != 1 {
			break
		}
		text = text[:len(text)-1]
	}
	return text
}
