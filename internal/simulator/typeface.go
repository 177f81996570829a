package simulator

import (
	"bytes"
	"embed"
	"fmt"
	"sync"

	"github.com/go-text/typesetting/font"
	"github.com/go-text/typesetting/harfbuzz"
	"github.com/go-text/typesetting/language"
)

//go:embed fonts/*.ttf
var fontFiles embed.FS

// typeface is an embedded font.
type typeface struct {
	name   string
	data   []byte
	parsed *font.Font
	upem   float64
}

// typefaces reads the fonts at the first drawing.
var typefaces = sync.OnceValues(func() (map[string]*typeface, error) {
	entries, err := fontFiles.ReadDir("fonts")
	if err != nil {
		return nil, err
	}
	out := map[string]*typeface{}
	for _, e := range entries {
		data, err := fontFiles.ReadFile("fonts/" + e.Name())
		if err != nil {
			return nil, err
		}
		face, err := font.ParseTTF(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("font %s: %w", e.Name(), err)
		}
		name := e.Name()[:len(e.Name())-len(".ttf")]
		out[name] = &typeface{name: name, data: data, parsed: face.Font, upem: float64(face.Upem())}
	}
	return out, nil
})

// style is a look of text; the font that serves it depends on the script.
type style int

const (
	regular style = iota
	bold
	title // serif, for Latin; the Indic fonts have no serif and serve it in bold
)

// script says which letters a font is asked for.
type script struct {
	tag    language.Script
	family string
}

var (
	latin      = script{language.Latin, ""}
	devanagari = script{language.Devanagari, "NotoSansDevanagari"}
	gujarati   = script{language.Gujarati, "NotoSansGujarati"}
	tamil      = script{language.Tamil, "NotoSansTamil"}
)

// scriptOf is the script of a letter; common says that it goes with whatever stands before it.
func scriptOf(r rune) (s script, common bool) {
	switch {
	case r == 0x0964, r == 0x0965, r == 0x200c, r == 0x200d, r == ' ': // dandas, joiners
		return latin, true
	case r >= 0x0900 && r <= 0x097f, r >= 0xa8e0 && r <= 0xa8ff, r >= 0x1cd0 && r <= 0x1cff:
		return devanagari, false
	case r >= 0x0a80 && r <= 0x0aff:
		return gujarati, false
	case r >= 0x0b80 && r <= 0x0bff:
		return tamil, false
	}
	return latin, false
}

func (s script) fontName(st style) string {
	switch {
	case s.family == "" && st == title:
		return "NotoSerif-Bold"
	case s.family == "" && st == bold:
		return "NotoSans-Bold"
	case s.family == "":
		return "NotoSans-Regular"
	case st == regular:
		return s.family + "-Regular"
	}
	return s.family + "-Bold"
}

// glyph is a shaped glyph, in font units.
type glyph struct {
	id              uint16
	advance, dx, dy float64
	// text is what the glyph stands for: the whole cluster on its first glyph, nothing on the others.
	text string
}

// glyphRun is text of one script in one font.
type glyphRun struct {
	face   *typeface
	text   string
	glyphs []glyph
}

func (r *glyphRun) width(size float64) float64 {
	sum := 0.0
	for _, g := range r.glyphs {
		sum += g.advance
	}
	return sum * size / r.face.upem
}

// typeset splits text by script and shapes each part: this is what puts the vowels of क्ति and கௌ where they belong.
func typeset(text string, st style) ([]glyphRun, error) {
	faces, err := typefaces()
	if err != nil {
		return nil, err
	}
	runs := []glyphRun{}
	for _, part := range byScript(text) {
		face := faces[part.script.fontName(st)]
		runs = append(runs, glyphRun{face: face, text: string(part.runes), glyphs: shape(face, part)})
	}
	return runs, nil
}

type scriptPart struct {
	script script
	runes  []rune
}

func byScript(text string) []scriptPart {
	parts := []scriptPart{}
	for _, r := range text {
		s, common := scriptOf(r)
		last := len(parts) - 1
		if last >= 0 && (common || parts[last].script == s) {
			parts[last].runes = append(parts[last].runes, r)
			continue
		}
		parts = append(parts, scriptPart{s, []rune{r}})
	}
	return parts
}

func shape(face *typeface, part scriptPart) []glyph {
	buf := harfbuzz.NewBuffer()
	buf.AddRunes(part.runes, 0, len(part.runes))
	buf.Props = harfbuzz.SegmentProperties{Direction: harfbuzz.LeftToRight, Script: part.script.tag, Language: language.DefaultLanguage()}
	shaper := harfbuzz.NewFont(font.NewFace(face.parsed)) // of our own: a face is not safe for use by many
	buf.Shape(shaper, nil)
	out := make([]glyph, len(buf.Info))
	for i, info := range buf.Info {
		pos := buf.Pos[i]
		out[i] = glyph{
			id: uint16(info.Glyph), advance: float64(pos.XAdvance), dx: float64(pos.XOffset), dy: float64(pos.YOffset),
			text: clusterText(buf.Info, i, part.runes),
		}
	}
	return out
}

// clusterText is the letters of a cluster, given once.
func clusterText(infos []harfbuzz.GlyphInfo, i int, runes []rune) string {
	if i > 0 && infos[i-1].Cluster == infos[i].Cluster {
		return ""
	}
	end := len(runes)
	for _, other := range infos[i+1:] {
		if other.Cluster > infos[i].Cluster {
			end = other.Cluster
			break
		}
	}
	return string(runes[infos[i].Cluster:end])
}
