package zone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestLoad_AllErrorsAreFoundAtOnce(t *testing.T) {
	text := head + "a A x\nb A 192.0.2.1\nc FOO x\n\nd..e A 192.0.2.1\n  A 192.0.2.2\ne MX (\n x y )\nf A 192.0.2.300\n"
	for limit, want := range map[int]int{0: 5, 2: 2} {
		_, _, err := loadText(t, text, func(o *LoadOptions) { o.MaxErrors = limit })
		var le *LoadError
		if !errors.As(err, &le) || le.Total != 5 || len(le.Errors) != want {
			t.Fatalf("limit %d: %v", limit, err)
		}
		var lines []int
		for _, e := range le.Errors {
			lines = append(lines, e.Line)
		}
		if diff := cmp.Diff([]int{4, 6, 8, 10, 12}[:want], lines); diff != "" {
			t.Error(diff)
		}
	}
	text = head + "a CNAME x\na A 192.0.2.1\nb CNAME x\nb A 192.0.2.1\n"
	_, _, err := loadText(t, text, nil)
	var le *LoadError
	if !errors.As(err, &le) || le.Total != 2 || le.Errors[1].Line != 6 {
		t.Errorf("got %v", err)
	}
}

func TestLoad_LongRecordEndsTheFile(t *testing.T) {
	for name, text := range map[string]string{
		"one line":    head + "a TXT " + strings.Repeat("x", 2*maxRecordText) + "\n",
		"parentheses": head + "a TXT (" + strings.Repeat("x"+strings.Repeat(" ", 1000)+"\n", 1100) + ")\n",
	} {
		_, _, err := loadText(t, text, nil)
		if !errors.Is(err, errTooLong) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	long := head + "a TXT (" + strings.Repeat(strings.Repeat("y", 200)+"\n", 300) + ")\n"
	if _, _, err := loadText(t, long, nil); err != nil {
		t.Errorf("a long record is refused: %v", err)
	}
	comments := map[string]string{
		"after a record":       "a A 192.0.2.1 ;" + strings.Repeat("\"(x\\ ", maxRecordText),
		"in parentheses":       "a A ( ;" + strings.Repeat("x", 3*maxRecordText) + "\n192.0.2.1 )",
		"many of one record":   "a A (" + strings.Repeat(";"+strings.Repeat("x", 1000)+"\n", 3000) + "192.0.2.1 )",
		"on a line of its own": ";" + strings.Repeat("x", 3*maxRecordText) + "\na A 192.0.2.1",
	}
	for name, text := range comments {
		_, _, err := loadText(t, head+text+"\nb A 192.0.2.x", nil)
		var le *LoadError
		if !errors.As(err, &le) || le.Total != 1 || le.Errors[0].Line != 4+strings.Count(text, "\n")+1 {
			t.Errorf("comment %s: the error behind it is %v", name, err)
		}
		l, got, err := loadText(t, head+text+"\nb A 192.0.2.2", nil)
		want := []string{"10 a.example. 300 A c0000201", "10 b.example. 300 A c0000202"}
		if err != nil || l.Records != 4 || !slices.Equal(got[2:], want) {
			t.Errorf("comment %s: %v %v", name, got, err)
		}
	}
	tooLong := head + "a TXT (" + strings.Repeat(strings.Repeat("y", 255)+"\n", 256) + ")\n"
	if _, _, err := loadText(t, tooLong, nil); !errors.Is(err, errRDataLong) {
		t.Errorf("RDATA of 65536 bytes: %v", err)
	}
}

func TestLoad_RRsetBeyondTheLimit(t *testing.T) {
	var text strings.Builder
	text.WriteString(head)
	for i := range 2100 {
		fmt.Fprintf(&text, "a TXT %d%s\n", i, strings.Repeat("x", 247))
	}
	_, _, err := loadText(t, text.String(), nil)
	if !errors.Is(err, errRRsetLong) {
		t.Errorf("got %v", err)
	}
	dup := head + strings.Repeat("a TXT "+strings.Repeat("x", 250)+"\n", 3000)
	l, _, err := loadText(t, dup, nil)
	if err != nil || l.Records != 3 {
		t.Errorf("duplicates count against the limit: %v", err)
	}
}

func TestLoad_Notices(t *testing.T) {
	text := head + "a 5 A 192.0.2.2\na 9 A 192.0.2.1\na 7 A 192.0.2.2\nb DS 1 13 2 " + strings.Repeat("00", 32) + "\nc 999 A 192.0.2.1\n"
	l, got, err := loadText(t, text, func(o *LoadOptions) { o.MaxTTL, o.ClampTTL = 600, true })
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"10 a.example. 5 A c0000201", "10 a.example. 5 A c0000202",
		"10 b.example. 300 DS 00010d02" + strings.Repeat("00", 32), "10 c.example. 600 A c0000201",
	}
	if diff := cmp.Diff(want, got[2:]); diff != "" {
		t.Error(diff)
	}
	notices := []string{
		"TTLs above the limit were lowered: 1, first at zone:8",
		"RRsets have several TTLs; the lowest is taken (RFC 2181, 5.2): 1, first at zone:4",
		"duplicate records were dropped: 1, first at zone:6",
		"DS records without NS records at their name: 1, first at zone:7",
		ErrServerAddress.Error() + ": 1, first at zone:3",
	}
	if diff := cmp.Diff(notices, l.Notices); diff != "" {
		t.Error(diff)
	}
	if l.Records != 6 || l.RRsets != 5 || l.Serial != 7 {
		t.Errorf("%d records, %d RRsets, serial %d", l.Records, l.RRsets, l.Serial)
	}
	_, _, err = loadText(t, text, func(o *LoadOptions) { o.MaxTTL = 600 })
	if !errors.Is(err, errTTLTooHigh) {
		t.Errorf("a TTL above the limit is not refused: %v", err)
	}
}

const signed = head + `@ DNSKEY 257 3 13 AQ==
@ CDS 0 0 0 00
@ CDNSKEY 0 3 0 AA==
@ NSEC3PARAM 1 0 0 -
@ RRSIG SOA 13 1 300 20300101000000 20200101000000 1 example. AQ==
@ RRSIG NS 13 1 300 20300101000000 20200101000000 1 example. AQ==
@ RRSIG NS 13 1 300 20300101000000 20200101000000 2 example. AQ==
a CDS 0 0 0 00
a RRSIG CDS 13 2 300 20300101000000 20200101000000 1 example. AQ==
2T7B4G4VSA5SMI47K61MV5BV1A22BOJR NSEC3 1 1 0 - 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR NS
2T7B4G4VSA5SMI47K61MV5BV1A22BOJR RRSIG NSEC3 13 2 300 20300101000000 20200101000000 1 example. AQ==
`

func TestLoad_SignersOwnRecordsAreDroppedOrKept(t *testing.T) {
	l, got, err := loadText(t, signed, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[2] != "10 a.example. 300 CDS 0000000000" {
		t.Errorf("got %s", strings.Join(got, "\n"))
	}
	want := map[string]uint64{"DNSKEY": 1, "CDS": 1, "CDNSKEY": 1, "NSEC3PARAM": 1, "RRSIG": 5, "NSEC3": 1}
	if diff := cmp.Diff(want, l.Stripped); diff != "" {
		t.Error(diff)
	}
	kept, all, err := loadText(t, signed, func(o *LoadOptions) { o.KeepSigned = true })
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, line := range all {
		f := strings.Fields(line)
		kinds = append(kinds, f[0]+" "+f[1]+" "+f[3])
	}
	hashed := "2T7B4G4VSA5SMI47K61MV5BV1A22BOJR.example."
	wantKinds := []string{
		"10 example. NS", "10 example. SOA", "10 a.example. CDS",
		"11 example. DNSKEY", "11 example. NSEC3PARAM", "11 example. CDS", "11 example. CDNSKEY",
		"12 example. NS", "12 example. NS", "12 example. SOA", "12 a.example. CDS",
		"13 " + hashed + " NSEC3", "14 " + hashed + " NSEC3",
	}
	if diff := cmp.Diff(wantKinds, kinds); diff != "" {
		t.Error(diff)
	}
	if kept.Records != 3 || kept.RRsets != l.RRsets {
		t.Error("records of the signer's own count as contents")
	}
	if want := (Kept{Records: 10, Signatures: 5, Earliest: kept.Kept.Earliest}); kept.Kept != want || want.Earliest == 0 {
		t.Errorf("kept %+v, want %+v", kept.Kept, want)
	}
	if *kept.ContentState == *l.ContentState {
		t.Error("the content digest does not cover what is kept")
	}
}

func TestLoad_ContentStateIsThatOfTheItems(t *testing.T) {
	var text strings.Builder
	text.WriteString(head)
	for i := range 30_000 {
		fmt.Fprintf(&text, "n%d NS ns%d.x.\n", i*7919%30_000, i%10)
	}
	var want Hasher
	l, err := Load(context.Background(), LoadOptions{
		FS: fstest.MapFS{"zone": {Data: []byte(text.String())}}, File: "zone", Origin: "\x07example\x00",
		Spill: &memSpill{}, Memory: 512 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var last []byte
	for l.Items.Next() {
		if bytes.Compare(last, l.Items.Key()) >= 0 {
			t.Fatalf("key %x after %x", l.Items.Key(), last)
		}
		last = append(last[:0], l.Items.Key()...)
		if err := want.AddContent(l.Items.Key(), l.Items.Value()); err != nil {
			t.Fatal(err)
		}
	}
	if l.Items.Err() != nil || *l.ContentState != want.Set || l.RRsets != 30_002 {
		t.Errorf("%v, %d RRsets, or another state", l.Items.Err(), l.RRsets)
	}
}

func TestLoad_EndsEarlyWithoutLeftovers(t *testing.T) {
	var text strings.Builder
	text.WriteString(head)
	for i := range 50_000 {
		fmt.Fprintf(&text, "n%d NS ns.x.\n", i)
	}
	fsys := fstest.MapFS{"zone": {Data: []byte(text.String())}}
	load := func(ctx context.Context, spill *memSpill) (*Loaded, error) {
		return Load(ctx, LoadOptions{FS: fsys, File: "zone", Origin: "\x07example\x00", Spill: spill, Memory: 512 << 10})
	}
	spill := &memSpill{}
	l, err := load(context.Background(), spill)
	if err != nil {
		t.Fatal(err)
	}
	for range 20_000 {
		l.Items.Next()
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil || spill.open != 0 || l.Items.Next() {
		t.Errorf("%v, %d files open", err, spill.open)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if l, err = load(ctx, spill); err != nil {
		t.Fatal(err)
	}
	cancel()
	for l.Items.Next() {
	}
	if !errors.Is(l.Items.Err(), context.Canceled) {
		t.Errorf("got %v", l.Items.Err())
	}
	l.Close()
	if _, err := load(ctx, spill); !errors.Is(err, context.Canceled) || spill.open != 0 {
		t.Errorf("got %v, %d files open", err, spill.open)
	}
	if _, err := load(context.Background(), &memSpill{failWrite: 3}); !errors.Is(err, errSpill) {
		t.Errorf("got %v", err)
	}
}

func TestLoad_Include(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	good := fstest.MapFS{
		"zone":       file(head + "a A 192.0.2.1\n$INCLUDE sub/one x\n  A 192.0.2.2\n$INCLUDE sub/one\n"),
		"sub/one":    file("  A 192.0.2.9 ; of the owner before\na A 192.0.2.8\nb A 192.0.2.3\n$TTL 5\n$ORIGIN other.example.\n$INCLUDE two ; same folder\n"),
		"sub/two":    file("c A 192.0.2.4\n"),
		"outer/zone": file(head + "$INCLUDE ../zone\n"),
	}
	_, got, err := loadFS(t, good, nil)
	want := []string{
		"10 a.example. 5 A c0000201", "10 a.example. 5 A c0000202", "10 a.example. 5 A c0000208", "10 a.example. 5 A c0000209",
		"10 b.example. 5 A c0000203", "10 c.other.example. 5 A c0000204", "10 a.x.example. 300 A c0000208", "10 b.x.example. 300 A c0000203",
	}
	if diff := cmp.Diff(want, got[2:]); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for name, tc := range map[string]struct {
		fsys fstest.MapFS
		file string
		want error
		at   string
	}{
		"missing":         {fstest.MapFS{"zone": file(head + "$INCLUDE nope\n")}, "zone", fs.ErrNotExist, "zone"},
		"zone is missing": {fstest.MapFS{}, "zone", fs.ErrNotExist, "zone"},
		"absolute":        {fstest.MapFS{"zone": file(head + "$INCLUDE /etc/passwd\n")}, "zone", errIncludePath, "zone"},
		"above":           {good, "outer/zone", errIncludeEscape, "outer/zone"},
		"cycle":           {fstest.MapFS{"zone": file(head + "$INCLUDE a\n"), "a": file("$INCLUDE b\n"), "b": file("$INCLUDE a\n")}, "zone", errIncludeCycle, "b"},
		"error inside":    {fstest.MapFS{"zone": file(head + "$INCLUDE a\n"), "a": file("\nx A y\n")}, "zone", errBadAddress, "a"},
		"no owner":        {fstest.MapFS{"zone": file("$TTL 5\n$INCLUDE a\n" + head), "a": file(" A 192.0.2.1\n")}, "zone", errNoOwner, "a"},
		"missing inside":  {fstest.MapFS{"zone": file(head + "$INCLUDE a\n"), "a": file("$INCLUDE nope\n")}, "zone", fs.ErrNotExist, "a"},
		"folder":          {fstest.MapFS{"zone": file(head + "$INCLUDE a\n"), "a/b": file("")}, "zone", errIsFolder, "zone"},
	} {
		_, _, err := loadFS(t, tc.fsys, func(o *LoadOptions) { o.File = tc.file })
		var le *LoadError
		if !errors.As(err, &le) || !errors.Is(err, tc.want) || le.Errors[0].File != tc.at {
			t.Errorf("%s: got %v", name, err)
		}
	}
	deep := fstest.MapFS{}
	for i := range maxIncludeDepth + 2 {
		deep[fmt.Sprintf("f%d", i)] = file(fmt.Sprintf("%s$INCLUDE f%d\n", head, i+1))
	}
	if _, _, err := loadFS(t, deep, func(o *LoadOptions) { o.File = "f0" }); !errors.Is(err, errIncludeDepth) {
		t.Errorf("got %v", err)
	}
}

func TestLoad_ProgressComesToItsEnd(t *testing.T) {
	text := head + strings.Repeat("a A 192.0.2.1\n", 50_000)
	var last, calls int64
	_, _, err := loadText(t, text, func(o *LoadOptions) {
		o.Progress = func(read, total int64) {
			calls++
			if read < last || total != int64(len(text)) {
				t.Errorf("read %d after %d of %d", read, last, total)
			}
			last = read
		}
	})
	if err != nil || last != int64(len(text)) || calls < 2 {
		t.Errorf("%v, %d bytes in %d calls", err, last, calls)
	}
}

func TestLoad_NoDigestLeavesTheItemsAsTheyAre(t *testing.T) {
	_, want, err := loadText(t, signed, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, got, err := loadText(t, signed, func(o *LoadOptions) { o.NoDigest = true })
	if diff := cmp.Diff(want, got); diff != "" || err != nil || l.ContentState != nil {
		t.Errorf("%v %v %s", err, l.ContentState, diff)
	}
}

// FuzzZoneFile: whatever is read without an error is read again as the same
// after it was written.
func FuzzZoneFile(f *testing.F) {
	f.Add(head + "a A 192.0.2.1\n")
	f.Add(signed)
	f.Add(head + "$GENERATE 1-9/3 a${1,2,n} TXT ( \"$\" ; x\n )\n$ORIGIN b\nc\\.d 1h IN MX 1 @\n")
	for typ, texts := range samples() {
		for _, text := range texts {
			f.Add(head + "x " + Type(typ).String() + " " + text + "\n")
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "GENERATE") && len(text) > 300 {
			return // a million records a directive take too long
		}
		l, got, err := loadText(t, text, func(o *LoadOptions) { o.KeepSigned = true })
		if err != nil {
			var le *LoadError
			if !errors.As(err, &le) || le.Total == 0 || len(le.Errors) == 0 {
				t.Fatalf("an error that names no place: %v", err)
			}
			return
		}
		if l.Records > 10_000 {
			return
		}
		again, back := rewrite(t, text)
		if diff := cmp.Diff(got, back); diff != "" {
			t.Errorf("%q\nwritten as\n%s%s", text, again, diff)
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	const names = 100_000
	var text bytes.Buffer
	text.WriteString(head)
	r := sequence(1)
	for range names {
		n := r.upTo(1 << 40)
		fmt.Fprintf(&text, "d%x\t3600\tIN\tNS\tns1.p%d.test.\nd%x\t3600\tIN\tNS\tns2.p%d.test.\n", n, n%999, n, n%999)
		fmt.Fprintf(&text, "d%x\t3600\tIN\tDS\t%d 13 2 %064X\n", n, n%65536, n)
	}
	fsys := fstest.MapFS{"zone": {Data: text.Bytes()}}
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		l, err := Load(context.Background(), LoadOptions{FS: fsys, File: "zone", Origin: "\x07example\x00", Spill: &memSpill{}})
		if err != nil {
			b.Fatal(err)
		}
		for l.Items.Next() {
		}
		if l.Items.Err() != nil {
			b.Fatal(l.Items.Err())
		}
		l.Close()
	}
	b.ReportMetric(float64(3*names*b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkLoadSmall(b *testing.B) {
	fsys := fstest.MapFS{"zone": {Data: []byte(zonemdComplex)}}
	b.ReportAllocs()
	for b.Loop() {
		l, err := Load(context.Background(), LoadOptions{FS: fsys, File: "zone", Origin: "\x07example\x00", Spill: &memSpill{}})
		if err != nil {
			b.Fatal(err)
		}
		for l.Items.Next() {
		}
		if l.Items.Err() != nil {
			b.Fatal(l.Items.Err())
		}
		l.Close()
	}
}

func BenchmarkWriter(b *testing.B) {
	sig := "13 2 3600 20300101000000 20200101000000 12345 example. oJB1W6WNGv+ldvQ3WDG0MQkg5IEhjRip8WTrPYGv07h108dUKGMeDPKijVCHX3DDKdfb+v6oB9wfuh3DTJXUAQ=="
	for name, it := range map[string]Item{
		"NS":    itemOf(b, KindContents, "domain1.example. 3600 IN NS ns1.provider.test."),
		"A":     itemOf(b, KindContents, "domain1.example. 3600 IN A 192.0.2.100"),
		"DS":    itemOf(b, KindContents, "domain1.example. 3600 IN DS 12345 13 2 "+strings.Repeat("AB", 32)),
		"RRSIG": itemOf(b, KindSigs, "domain1.example. 3600 IN RRSIG DS "+sig),
		"NSEC":  itemOf(b, KindMade, "domain1.example. 3600 IN NSEC domain2.example. NS DS RRSIG NSEC"),
		"NSEC3": itemOf(b, KindChain, "2T7B4G4VSA5SMI47K61MV5BV1A22BOJR.example. 3600 IN NSEC3 1 1 0 - 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR NS DS RRSIG"),
	} {
		b.Run(name, func(b *testing.B) {
			w := NewWriter(discard{})
			b.ReportAllocs()
			for b.Loop() {
				if err := w.WriteItem(it.Key, it.Value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
