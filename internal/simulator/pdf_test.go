package simulator

import (
	"bytes"
	"compress/zlib"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pageText is what a viewer would copy from the file: the letters attached to the glyphs.
func pageText(t *testing.T, pdf []byte) string {
	t.Helper()
	var out strings.Builder
	for _, part := range bytes.Split(pdf, []byte("stream\n"))[1:] {
		z, err := zlib.NewReader(bytes.NewReader(part))
		if err != nil {
			continue // between streams
		}
		content, err := io.ReadAll(z)
		require.NoError(t, err)
		for _, span := range regexp.MustCompile(`ActualText <feff([0-9a-f]*)>`).FindAllSubmatch(content, -1) {
			out.WriteString(fromUTF16Hex(t, string(span[1])))
		}
	}
	return out.String()
}

func fromUTF16Hex(t *testing.T, s string) string {
	t.Helper()
	out := []rune{}
	for ; len(s) >= 4; s = s[4:] {
		var r rune
		for _, digit := range s[:4] {
			r = r<<4 + rune(strings.IndexRune("0123456789abcdef", digit))
		}
		out = append(out, r)
	}
	return string(out)
}

func sampleCertificate(name string) *certificate {
	return &certificate{
		ID: "2ee1ee2d-f96f-4e9d-bd54-2d4a1e2a5c11", RecipientName: name, IssuedOn: "2019-08-21T00:00:00Z",
		design: &design{
			Era: Era390, Name: DemoCertificate, CourseName: "Course one", Base: "https://council.example.in/certs", Tag: "0123_0127",
			Issuer: Issuer{Name: "Council"}, Signatories: []Signatory{{ID: "CEO", Designation: "CEO"}, {ID: "श्री राव", Designation: "Director"}},
		},
	}
}

func TestCertificateIsDrawnInEachScript(t *testing.T) {
	t.Parallel()
	for name, font := range map[string]string{
		"Asha D'Souza": "NotoSans-Bold", "श्रीनिवास क्षत्रिय": "NotoSansDevanagari-Bold", "જ્ઞાનદીપ ત્રિવેદી": "NotoSansGujarati-Bold",
		"கௌசல்யா ஸ்ரீதேவி": "NotoSansTamil-Bold",
	} {
		pdf, err := drawCertificate(sampleCertificate(name))
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(pdf, []byte("%PDF-1.7")) && bytes.HasSuffix(pdf, []byte("%%EOF\n")))
		require.Contains(t, string(pdf), font)
		require.Less(t, len(pdf), 60_000, "fonts go in only as far as they are used")
		text := pageText(t, pdf)
		for _, want := range []string{"Certificate of Completion", name, "Course one", "on 21 August 2019", "Council", "श्री राव", "Scan to verify"} {
			require.Contains(t, text, want)
		}
		again, err := drawCertificate(sampleCertificate(name))
		require.NoError(t, err)
		require.Equal(t, pdf, again, "the same bytes each time")
	}
}

// TestShaping checks that letters join and move as the scripts want: fewer glyphs than letters where they join, the
// vowel sign first where it is written before its consonant, and never a missing glyph.
func TestShaping(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		text   string
		glyphs int
		first  string // text whose glyph comes first
		last   string // text whose glyph comes last
	}{
		{"क्ष", 1, "क्ष", "क्ष"},
		{"श्री", 2, "श्र", "ी"},
		{"शक्ति", 4, "श", "त"},
		{"જ્ઞ", 1, "જ્ઞ", "જ્ઞ"},
		{"ત્રિ", 2, "", "ત્ર"},
		{"கௌ", 3, "ெ", "ௗ"},
		{"ஸ்ரீ", 1, "ஸ்ரீ", "ஸ்ரீ"},
		{"fi", 2, "f", "i"},
	} {
		runs, err := typeset(row.text, bold)
		require.NoError(t, err)
		require.Len(t, runs, 1, row.text)
		require.Len(t, runs[0].glyphs, row.glyphs, row.text)
		for text, id := range map[string]uint16{row.first: runs[0].glyphs[0].id, row.last: runs[0].glyphs[row.glyphs-1].id} {
			if text != "" && row.glyphs > 1 {
				alone, err := typeset(text, bold)
				require.NoError(t, err)
				require.Contains(t, idsOf(alone[0].glyphs), id, row.text+" "+text)
			}
		}
		require.NotContains(t, idsOf(runs[0].glyphs), uint16(0), row.text)
	}
	mixed, err := typeset("Asha आशा આશા ஆஷா!", regular)
	require.NoError(t, err)
	require.Len(t, mixed, 5, "one run for each script, the blank with what stands before it")
}

func idsOf(glyphs []glyph) []uint16 {
	out := []uint16{}
	for _, g := range glyphs {
		out = append(out, g.id)
	}
	return out
}

func TestEverySeedNameHasItsGlyphs(t *testing.T) {
	t.Parallel()
	for _, list := range nameLists {
		for _, name := range append(append([]string{}, list.first...), list.last...) {
			runs, err := typeset(name, bold)
			require.NoError(t, err)
			for _, r := range runs {
				require.NotContains(t, idsOf(r.glyphs), uint16(0), name)
			}
		}
	}
}

func TestSubsetRefusesDamage(t *testing.T) {
	t.Parallel()
	for _, data := range [][]byte{nil, make([]byte, 12), {0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0}} {
		_, err := subset(data, map[uint16]bool{1: true})
		require.ErrorIs(t, err, errFont)
	}
}
