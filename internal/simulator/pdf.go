package simulator

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"strings"
	"sync"

	"github.com/boombuler/barcode/qr"
)

// Colours and measures of the certificate, a landscape A4 sheet in points.
const (
	pageWidth  = 841.89
	pageHeight = 595.28

	ink   = "0.13 0.16 0.24"
	navy  = "0.10 0.22 0.42"
	gold  = "0.72 0.55 0.20"
	faint = "0.42 0.45 0.52"
	paper = "0.995 0.985 0.955"
)

// drawCertificate draws the certificate as a PDF file. The same certificate always gives the same bytes.
func drawCertificate(c *certificate) ([]byte, error) {
	s := &sheet{pdfPage: pdfPage{width: pageWidth, height: pageHeight}}
	s.frame()
	s.words(c)
	s.signature(c.design)
	s.seal(pageWidth/2, 118)
	s.code(c)
	if s.err != nil {
		return nil, fmt.Errorf("draw certificate %s: %w", c.ID, s.err)
	}
	return s.document(map[string]string{
		"Title": c.title() + ": " + c.RecipientName, "Author": c.design.Issuer.Name, "Subject": c.subject(),
		"Keywords": c.publicURL(),
	})
}

// title is what the sheet is headed with: the templates of the files server are one of completion and one of merit.
func (c *certificate) title() string {
	if strings.Contains(strings.ToLower(c.design.Name), "merit") {
		return "Certificate of Merit"
	}
	return "Certificate of Completion"
}

func (c *certificate) subject() string {
	if c.design.CourseName != "" {
		return c.design.CourseName
	}
	return c.design.Name
}

func (c *certificate) day() string {
	t, ok := isoTime(c.IssuedOn)
	if !ok {
		return c.IssuedOn
	}
	return t.Format("2 January 2006")
}

// sheet is a page with the tools of a certificate. The first error of typesetting stays.
type sheet struct {
	pdfPage
	err error
}

func (s *sheet) typeset(text string, st style) []glyphRun {
	runs, err := typeset(text, st)
	if err != nil && s.err == nil {
		s.err = err
	}
	return runs
}

func widthOf(runs []glyphRun, size float64) float64 {
	sum := 0.0
	for i := range runs {
		sum += runs[i].width(size)
	}
	return sum
}

// centred writes a line around x, smaller where it would be wider than room, and gives the width it took.
func (s *sheet) centred(text string, st style, x, y, size, room float64, colour string) float64 {
	runs := s.typeset(text, st)
	width := widthOf(runs, size)
	if width > room {
		size, width = size*room/width, room
	}
	s.op("%s rg", colour)
	s.textAt(x-width/2, y, size, runs)
	return width
}

func (s *sheet) frame() {
	s.op("%s rg 0 0 %.2f %.2f re f", paper, s.width, s.height)
	s.op("%s RG 5 w 24 24 %.2f %.2f re S", navy, s.width-48, s.height-48)
	s.op("%s RG 1.2 w 33 33 %.2f %.2f re S", gold, s.width-66, s.height-66)
	for _, corner := range [][2]float64{{33, 33}, {s.width - 33, 33}, {33, s.height - 33}, {s.width - 33, s.height - 33}} {
		dx, dy := math.Copysign(1, s.width/2-corner[0]), math.Copysign(1, s.height/2-corner[1])
		s.op("%s RG 1.2 w", gold)
		for _, r := range []float64{16, 24, 32} {
			s.op("%.2f %.2f m %.2f %.2f %.2f %.2f %.2f %.2f c S", corner[0]+dx*r, corner[1],
				corner[0]+dx*r, corner[1]+dy*r*0.55, corner[0]+dx*r*0.55, corner[1]+dy*r, corner[0], corner[1]+dy*r)
		}
	}
}

func (s *sheet) words(c *certificate) {
	middle, room := s.width/2, s.width-180
	s.centred(c.design.Issuer.Name, bold, middle, 505, 17, room, navy)
	s.op("%s RG 1 w %.2f 492 m %.2f 492 l S", gold, middle-120, middle+120)
	s.centred(c.title(), title, middle, 434, 40, room, ink)
	s.centred("This is to certify that", regular, middle, 392, 14, room, faint)
	width := s.centred(c.RecipientName, bold, middle, 338, 36, room, navy)
	half := math.Max(width/2+26, 150)
	s.op("%s RG 0.8 w %.2f 318 m %.2f 318 l S", gold, middle-half, middle+half)
	s.centred("has successfully completed the course", regular, middle, 288, 14, room, faint)
	s.centred(c.subject(), bold, middle, 250, 23, room, ink)
	s.centred("on "+c.day(), regular, middle, 220, 14, room, faint)
	if c.Expires != "" {
		if end, ok := isoTime(c.Expires); ok {
			s.centred("valid until "+end.Format("2 January 2006"), regular, middle, 202, 11, room, faint)
		}
	}
}

// signature draws who signs: one signatory, or two side by side, the first with a pen's stroke.
func (s *sheet) signature(d *design) {
	who := d.Signatories[:min(2, len(d.Signatories))]
	const half = 64.0
	x := 290 - float64(len(who))*77
	for i, signer := range who {
		if i == 0 {
			s.op("%s RG 1.4 w 1 J 1 j", navy)
			s.op("%.1f 123 m %.1f 168 %.1f 96 %.1f 132 c %.1f 158 %.1f 104 %.1f 126 c %.1f 142 %.1f 112 %.1f 124 c %.1f 136 %.1f 118 %.1f 134 c S",
				x-52, x-30, x-38, x-14, x-2, x-8, x+8, x+16, x+14, x+28, x+38, x+44, x+62)
		}
		s.op("%s RG 0.8 w %.2f 108 m %.2f 108 l S", faint, x-half, x+half)
		s.centred(signer.ID, bold, x, 92, 11, 2*half, ink)
		if signer.Designation != signer.ID {
			s.centred(signer.Designation, regular, x, 77, 10, 2*half, faint)
		}
		x += 154
	}
}

// seal draws a rosette with a star.
func (s *sheet) seal(x, y float64) {
	s.op("%s rg", gold)
	for i := range 48 {
		radius, angle := 40.0, float64(i)*math.Pi/24
		if i%2 == 1 {
			radius = 35.5
		}
		s.op("%.2f %.2f %s", x+radius*math.Cos(angle), y+radius*math.Sin(angle), moveOrLine(i))
	}
	s.op("h f")
	s.circle(x, y, 30, paper)
	s.circle(x, y, 27.5, gold)
	s.circle(x, y, 26, paper)
	s.op("%s rg", navy)
	for i := range 10 {
		radius, angle := 19.0, math.Pi/2+float64(i)*math.Pi/5
		if i%2 == 1 {
			radius = 7.6
		}
		s.op("%.2f %.2f %s", x+radius*math.Cos(angle), y+radius*math.Sin(angle), moveOrLine(i))
	}
	s.op("h f")
}

func moveOrLine(i int) string {
	if i == 0 {
		return "m"
	}
	return "l"
}

func (s *sheet) circle(x, y, r float64, colour string) {
	k := 0.5523 * r
	s.op("%s rg %.2f %.2f m", colour, x+r, y)
	s.op("%.2f %.2f %.2f %.2f %.2f %.2f c", x+r, y+k, x+k, y+r, x, y+r)
	s.op("%.2f %.2f %.2f %.2f %.2f %.2f c", x-k, y+r, x-r, y+k, x-r, y)
	s.op("%.2f %.2f %.2f %.2f %.2f %.2f c", x-r, y-k, x-k, y-r, x, y-r)
	s.op("%.2f %.2f %.2f %.2f %.2f %.2f c f", x+k, y-r, x+r, y-k, x+r, y)
}

// code draws the QR code with the address of the assertion, and the certificate's number below it.
func (s *sheet) code(c *certificate) {
	code, err := qr.Encode(c.publicURL(), qr.M, qr.Auto)
	if err != nil {
		s.err = err
		return
	}
	const side, right, bottom = 84.0, 128.0, 82.0
	size := code.Bounds().Dx()
	module, left := side/float64(size), s.width-right-side/2
	s.op("%s rg", ink)
	for row := range size {
		for from := 0; from < size; {
			to := from
			for to < size && code.At(to, row) == color.Black {
				to++
			}
			if to > from {
				s.op("%.3f %.3f %.3f %.3f re", left+float64(from)*module, bottom+side-float64(row+1)*module, float64(to-from)*module, module)
			}
			from = max(to, from+1)
		}
	}
	s.op("f")
	s.centred("Scan to verify", regular, s.width-right, 70, 9, 160, faint)
	s.centred(c.ID, regular, s.width-right, 58, 7, 160, faint)
}

// signatureImage is the picture of a signature that the demo templates name.
var signatureImage = sync.OnceValue(func() []byte {
	const width, height = 160, 60
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for step := range 4000 {
		t := float64(step) / 4000
		x := 8 + t*144
		y := 30 + 20*math.Sin(t*19)*(1-t*0.7)
		for dx := range 3 {
			for dy := range 3 {
				img.SetNRGBA(int(x)+dx-1, int(y)+dy-1, color.NRGBA{R: 26, G: 56, B: 107, A: 255})
			}
		}
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		return nil
	}
	return buf.Bytes()
})
