package sunbird_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/sunbird"
)

func TestScrub(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text string
		sent []string
		want string
	}{
		"nothing sent":       {text: "Process  failed,\n please", want: "Process failed, please"},
		"an id":              {text: "Invalid value 95e4942d-cbe8 for", sent: []string{"95e4942d-cbe8"}, want: "Invalid value … for"},
		"glued to a word":    {text: "is invalid95e4942d", sent: []string{"95e4942d"}, want: "is invalid…"},
		"another case":       {text: "user ASHA RAO unknown", sent: []string{"Asha Rao"}, want: "user … unknown"},
		"part of a name":     {text: "user Rao, Asha", sent: []string{"Asha Rao"}, want: "user …, …"},
		"spaces between":     {text: "user Asha   Rao", sent: []string{" Asha  Rao "}, want: "user …"},
		"a short name":       {text: "program of Ram", sent: []string{"Ram"}, want: "program of …"},
		"an initial":         {text: "a row of R", sent: []string{"R"}, want: "a row of R"},
		"Devanagari":         {text: "नाम आशा राव अमान्य", sent: []string{"आशा राव"}, want: "नाम … अमान्य"},
		"Tamil, in JSON":     {text: `bad \u0b86\u0bb7\u0bbe`, sent: []string{"ஆஷா"}, want: `bad …`},
		"escaped for HTML":   {text: "bad &lt;Asha&gt; name", sent: []string{"<Asha>"}, want: "bad … name"},
		"escaped for a URL":  {text: "/read/do%20x%20y/z", sent: []string{"do x y"}, want: "/read/…/z"},
		"escaped as JSON":    {text: `{"n":"a \"quoted\" name"}`, sent: []string{`a "quoted" name`}, want: `{"n":"…"}`},
		"like a pattern":     {text: "x a.*b y", sent: []string{"a.*b"}, want: "x … y"},
		"empty and blank":    {text: "same", sent: []string{"", "  "}, want: "same"},
		"not UTF-8":          {text: "a\xffb", want: "a\uFFFDb"},
		"longest goes first": {text: "id 12345-67890", sent: []string{"12345", "12345-67890"}, want: "id …"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tt.want, sunbird.Scrub(tt.text, tt.sent...))
		})
	}
}

func TestScrubCutsBetweenLetters(t *testing.T) {
	t.Parallel()
	for _, text := range []string{strings.Repeat("आ", 3000), strings.Repeat("x", 1<<20), "a" + strings.Repeat("😀", 2000)} {
		got := sunbird.Scrub(text, "Asha")
		assert.LessOrEqual(t, len(got), 2048)
		assert.Greater(t, len(got), 2040)
		assert.True(t, utf8.ValidString(got))
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]sunbird.Text{
		`"a\u0915"`: "aक", `12`: "12", `1.50`: "1.50", `true`: "true", `null`: "", `{"a":1}`: "", `["a"]`: "", `""`: "",
	} {
		var got struct{ V sunbird.Text }
		require.NoError(t, json.Unmarshal([]byte(`{"v":`+in+`}`), &got))
		assert.Equal(t, want, got.V, in)
	}
}

func TestJSONDoesNotEscape(t *testing.T) {
	t.Parallel()
	got, err := sunbird.JSON(map[string]string{"name": "Asha <&> आशा"})
	require.NoError(t, err)
	assert.True(t, bytes.Equal([]byte(`{"name":"Asha <&> आशा"}`), got), "got %s", got)
}
