package simulator

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/go-text/typesetting/font"
)

// pdfPage collects the drawing of a one-page document. Writing the few operators needed here directly lets glyphs go
// in by number just as shaping put them, which PDF libraries for Go do not offer.
type pdfPage struct {
	width, height float64
	content       bytes.Buffer
	fonts         []*pdfFont
}

// pdfFont is a font as far as the page uses it.
type pdfFont struct {
	face *typeface
	used map[uint16]bool
	text map[uint16]string // what each glyph reads as, for copying and searching
}

func (p *pdfPage) op(format string, args ...any) {
	fmt.Fprintf(&p.content, format, args...)
	p.content.WriteByte('\n')
}

func (p *pdfPage) font(face *typeface) (*pdfFont, int) {
	for i, f := range p.fonts {
		if f.face == face {
			return f, i
		}
	}
	f := &pdfFont{face: face, used: map[uint16]bool{}, text: map[uint16]string{}}
	p.fonts = append(p.fonts, f)
	return f, len(p.fonts) - 1
}

// textAt draws runs from a point on. The letters are attached as they were given, since a viewer cannot tell them from
// the glyphs of a script whose vowels change places.
func (p *pdfPage) textAt(x, y, size float64, runs []glyphRun) {
	for i := range runs {
		r := &runs[i]
		f, number := p.font(r.face)
		p.op("/Span <</ActualText <%s>>> BDC", utf16Hex(r.text, true))
		p.op("BT /F%d %.2f Tf", number, size)
		scale := size / r.face.upem
		for _, g := range r.glyphs {
			f.used[g.id] = true
			if g.text != "" && f.text[g.id] == "" {
				f.text[g.id] = g.text
			}
			p.op("1 0 0 1 %.3f %.3f Tm <%04x> Tj", x+g.dx*scale, y+g.dy*scale, g.id)
			x += g.advance * scale
		}
		p.op("ET EMC")
	}
}

func utf16Hex(text string, mark bool) string {
	out := []byte{}
	if mark {
		out = append(out, 0xfe, 0xff)
	}
	for _, unit := range utf16.Encode([]rune(text)) {
		out = append(out, byte(unit>>8), byte(unit))
	}
	return hex.EncodeToString(out)
}

// pdfWriter numbers objects and keeps where each begins.
type pdfWriter struct {
	buf     bytes.Buffer
	offsets []int
}

func (w *pdfWriter) object(format string, args ...any) int {
	w.offsets = append(w.offsets, w.buf.Len())
	fmt.Fprintf(&w.buf, "%d 0 obj\n", len(w.offsets))
	fmt.Fprintf(&w.buf, format, args...)
	w.buf.WriteString("\nendobj\n")
	return len(w.offsets)
}

func (w *pdfWriter) stream(members string, data []byte) int {
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	_, _ = z.Write(data) // into memory: cannot fail
	_ = z.Close()
	return w.object("<<%s /Filter /FlateDecode /Length %d>>\nstream\n%s\nendstream", members, packed.Len(), packed.Bytes())
}

// document writes the page as a PDF file.
func (p *pdfPage) document(info map[string]string) ([]byte, error) {
	w := &pdfWriter{}
	w.buf.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	resources := ""
	for i, f := range p.fonts {
		number, err := w.font(f, fmt.Sprintf("ECRED%c+%s", 'A'+i, f.face.name)) // a subset's name begins with six letters
		if err != nil {
			return nil, err
		}
		resources += fmt.Sprintf("/F%d %d 0 R ", i, number)
	}
	content := w.stream("", p.content.Bytes())
	page := len(w.offsets) + 1
	w.object("<</Type /Page /Parent %d 0 R /MediaBox [0 0 %.2f %.2f] /Contents %d 0 R /Resources <</Font <<%s>>>>>>",
		page+1, p.width, p.height, content, resources)
	w.object("<</Type /Pages /Kids [%d 0 R] /Count 1>>", page)
	catalog := w.object("<</Type /Catalog /Pages %d 0 R /Lang (en)>>", page+1)
	return w.finish(catalog, info), nil
}

func (w *pdfWriter) finish(catalog int, info map[string]string) []byte {
	members := ""
	for _, name := range slices.Sorted(maps.Keys(info)) {
		members += fmt.Sprintf("/%s <%s> ", name, utf16Hex(info[name], true))
	}
	infoNumber := w.object("<<%s>>", members)
	start := w.buf.Len()
	fmt.Fprintf(&w.buf, "xref\n0 %d\n0000000000 65535 f \n", len(w.offsets)+1)
	for _, at := range w.offsets {
		fmt.Fprintf(&w.buf, "%010d 00000 n \n", at)
	}
	fmt.Fprintf(&w.buf, "trailer\n<</Size %d /Root %d 0 R /Info %d 0 R>>\nstartxref\n%d\n%%%%EOF\n",
		len(w.offsets)+1, catalog, infoNumber, start)
	return w.buf.Bytes()
}

// font writes a font whose codes are glyph numbers, and the letters they read as.
func (w *pdfWriter) font(f *pdfFont, name string) (int, error) {
	data, err := subset(f.face.data, f.used)
	if err != nil {
		return 0, fmt.Errorf("font %s: %w", f.face.name, err)
	}
	file := w.stream(fmt.Sprintf("/Length1 %d", len(data)), data)
	descriptor := w.object("<</Type /FontDescriptor /FontName /%s /Flags 4 /FontBBox [-500 -500 2000 1200] /ItalicAngle 0 "+
		"/Ascent 1069 /Descent -293 /CapHeight 714 /StemV 80 /FontFile2 %d 0 R>>", name, file)
	descendant := w.object("<</Type /Font /Subtype /CIDFontType2 /BaseFont /%s /CIDToGIDMap /Identity /DW 1000 /W [%s] "+
		"/CIDSystemInfo <</Registry (Adobe) /Ordering (Identity) /Supplement 0>> /FontDescriptor %d 0 R>>",
		name, f.widths(), descriptor)
	unicode := w.stream("", []byte(f.toUnicode()))
	return w.object("<</Type /Font /Subtype /Type0 /BaseFont /%s /Encoding /Identity-H /DescendantFonts [%d 0 R] /ToUnicode %d 0 R>>",
		name, descendant, unicode), nil
}

func (f *pdfFont) widths() string {
	var out strings.Builder
	face := font.NewFace(f.face.parsed)
	for _, id := range slices.Sorted(maps.Keys(f.used)) {
		fmt.Fprintf(&out, "%d [%.0f] ", id, float64(face.HorizontalAdvance(font.GID(id)))*1000/f.face.upem)
	}
	return out.String()
}

func (f *pdfFont) toUnicode() string {
	ids := slices.Sorted(maps.Keys(f.text))
	var out strings.Builder
	out.WriteString("/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapType 2 def /CMapName /letters def\n" +
		"1 begincodespacerange <0000> <ffff> endcodespacerange\n")
	for part := range slices.Chunk(ids, 100) { // as many as a section may have
		fmt.Fprintf(&out, "%d beginbfchar\n", len(part))
		for _, id := range part {
			fmt.Fprintf(&out, "<%04x> <%s>\n", id, utf16Hex(f.text[id], false))
		}
		out.WriteString("endbfchar\n")
	}
	out.WriteString("endcmap CMapName currentdict /CMap defineresource pop end end\n")
	return out.String()
}
