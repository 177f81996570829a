package simulator

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// keptTables are those a PDF viewer draws with; the rest serves shaping, which is done.
var keptTables = []string{"cvt ", "fpgm", "glyf", "head", "hhea", "hmtx", "loca", "maxp", "prep"}

var errFont = errors.New("font file is damaged")

// subset empties the outlines of all glyphs that are not used. Glyph numbers stay as they are, so the numbers from
// shaping can be written into the page.
func subset(data []byte, used map[uint16]bool) ([]byte, error) {
	tables, err := readTables(data)
	if err != nil {
		return nil, err
	}
	offsets, err := glyphOffsets(tables)
	if err != nil {
		return nil, err
	}
	used = maps.Clone(used)
	used[0] = true
	for _, id := range slices.Collect(maps.Keys(used)) {
		addComponents(tables["glyf"], offsets, id, used)
	}
	outlines, loca := []byte{}, []byte{}
	for id := range len(offsets) - 1 {
		loca = binary.BigEndian.AppendUint32(loca, uint32(len(outlines)))
		if used[uint16(id)] {
			outlines = append(outlines, tables["glyf"][offsets[id]:offsets[id+1]]...)
			outlines = append(outlines, make([]byte, -len(outlines)&3)...)
		}
	}
	tables["glyf"], tables["loca"] = outlines, binary.BigEndian.AppendUint32(loca, uint32(len(outlines)))
	tables["head"] = slices.Clone(tables["head"])
	binary.BigEndian.PutUint16(tables["head"][50:], 1) // loca has 32-bit offsets now
	return writeTables(tables), nil
}

func readTables(data []byte) (map[string][]byte, error) {
	if len(data) < 12 {
		return nil, errFont
	}
	tables := map[string][]byte{}
	for i := range int(binary.BigEndian.Uint16(data[4:])) {
		record := data[12+16*i:]
		if len(record) < 16 {
			return nil, errFont
		}
		from, size := int(binary.BigEndian.Uint32(record[8:])), int(binary.BigEndian.Uint32(record[12:]))
		if from+size > len(data) {
			return nil, errFont
		}
		if tag := string(record[:4]); slices.Contains(keptTables, tag) {
			tables[tag] = data[from : from+size]
		}
	}
	if len(tables["head"]) < 54 || tables["glyf"] == nil {
		return nil, errFont
	}
	return tables, nil
}

func glyphOffsets(tables map[string][]byte) ([]int, error) {
	loca := tables["loca"]
	out := []int{}
	if binary.BigEndian.Uint16(tables["head"][50:]) == 0 {
		for ; len(loca) >= 2; loca = loca[2:] {
			out = append(out, 2*int(binary.BigEndian.Uint16(loca)))
		}
	} else {
		for ; len(loca) >= 4; loca = loca[4:] {
			out = append(out, int(binary.BigEndian.Uint32(loca)))
		}
	}
	if len(out) < 2 || out[len(out)-1] > len(tables["glyf"]) {
		return nil, errFont
	}
	return out, nil
}

// addComponents marks the glyphs a composite glyph is put together from.
func addComponents(glyf []byte, offsets []int, id uint16, used map[uint16]bool) {
	if int(id)+1 >= len(offsets) {
		return
	}
	outline := glyf[offsets[id]:offsets[id+1]]
	if len(outline) < 10 || int16(binary.BigEndian.Uint16(outline)) >= 0 {
		return
	}
	for rest := outline[10:]; len(rest) >= 4; {
		flags, part := binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
		if !used[part] {
			used[part] = true
			addComponents(glyf, offsets, part, used)
		}
		size := componentSize(flags)
		if flags&0x20 == 0 || size > len(rest) {
			return
		}
		rest = rest[size:]
	}
}

// componentSize is how many bytes a component's record has, by its flags.
func componentSize(flags uint16) int {
	size := 6
	if flags&0x01 != 0 { // arguments are words
		size += 2
	}
	switch {
	case flags&0x08 != 0: // one scale
		size += 2
	case flags&0x40 != 0: // two scales
		size += 4
	case flags&0x80 != 0: // two by two
		size += 8
	}
	return size
}

func writeTables(tables map[string][]byte) []byte {
	tags := slices.Sorted(maps.Keys(tables))
	out := []byte{0, 1, 0, 0}
	out = binary.BigEndian.AppendUint16(out, uint16(len(tags)))
	out = append(out, 0, 128, 0, 3, 0, 16) // search hints for nine tables; no reader of an embedded font looks
	at := len(out) + 16*len(tags)
	body := []byte{}
	for _, tag := range tags {
		table := tables[tag]
		out = append(out, tag...)
		out = binary.BigEndian.AppendUint32(out, checksum(table))
		out = binary.BigEndian.AppendUint32(out, uint32(at+len(body)))
		out = binary.BigEndian.AppendUint32(out, uint32(len(table)))
		body = append(body, table...)
		body = append(body, make([]byte, -len(body)&3)...)
	}
	return append(out, body...)
}

func checksum(table []byte) uint32 {
	sum := uint32(0)
	for len(table) >= 4 {
		sum += binary.BigEndian.Uint32(table)
		table = table[4:]
	}
	var last [4]byte
	copy(last[:], table)
	return sum + binary.BigEndian.Uint32(last[:])
}
