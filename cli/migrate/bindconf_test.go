package migrate

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// confOf reads a configuration out of files in memory; the first is named.conf.
func confOf(files map[string]string) (block, error) {
	r := &confReader{
		open: func(path string) ([]byte, error) {
			text, ok := files[path]
			if !ok {
				return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
			}
			return []byte(text), nil
		},
		glob: func(pattern string) (out []string, err error) {
			for path := range files {
				if strings.HasPrefix(path, strings.TrimSuffix(pattern, "*")) && path != "/etc/named.conf" {
					out = append(out, path)
				}
			}
			return out, nil
		},
	}
	return r.file("/etc/named.conf", 0)
}

// shown writes statements in one way.
func shown(b block) string {
	var out strings.Builder
	for _, s := range b {
		for i, n := range s.nodes {
			if i > 0 {
				out.WriteString(" ")
			}
			if n.is {
				fmt.Fprintf(&out, "{ %s}", shown(n.block))
			} else {
				fmt.Fprintf(&out, "%q", n.text)
			}
		}
		out.WriteString("; ")
	}
	return out.String()
}

func TestReadConf_Grammar(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"comments of three kinds", "a b; // c;\n# d;\n/* e; \n f */ g /* h */ i;", `"a" "b"; "g" "i"; `},
		{"a comment within words", "also-notify { 192.0.2.1 /* x */ port 53; };//", `"also-notify" { "192.0.2.1" "port" "53"; }; `},
		{"slashes are parts of words", "acl x { 10.0.0.0/8; !192.0.2.0/24; };", `"acl" "x" { "10.0.0.0/8"; "!192.0.2.0/24"; }; `},
		{"a word ends where a comment begins", "a b//c\n;d e/*f*/;", `"a" "b"; "d" "e"; `},
		{"quotes", `zone "exa\"mple" IN{type primary;};file"x y";`, `"zone" "exa\"mple" "IN" { "type" "primary"; }; "file" "x y"; `},
		{"several blocks", `inet * port 953 allow { any; } keys { "k"; };`, `"inet" "*" "port" "953" "allow" { "any"; } "keys" { "k"; }; `},
		{"empty statements", ";;a;;{};", `"a"; { }; `},
		{"nothing", "", ""},
	} {
		b, err := confOf(map[string]string{"/etc/named.conf": c.text})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if diff := cmp.Diff(c.want, shown(b)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestReadConf_ErrorsNameFileAndLine(t *testing.T) {
	for text, want := range map[string]string{
		"a;\nb":                         "/etc/named.conf:2: a statement without its semicolon",
		"a {\n b;\n":                    "/etc/named.conf:3: the file ends within a block",
		"a { b };":                      "/etc/named.conf:1: a statement without its semicolon",
		"};":                            "/etc/named.conf:1: } without {",
		"\n/* a":                        "/etc/named.conf:2: a comment without an end",
		"\"a\nb\";":                     "/etc/named.conf:1: a string without an end",
		"\n\ninclude \"none\";":         "/etc/named.conf:3: include: open /etc/none: file does not exist",
		"include \"sub\";":              "/etc/sub:2: } without {",
		"include \"named.conf\";":       "/etc/named.conf:1: files include each other more than 64 deep",
		strings.Repeat("a {", 100):      "/etc/named.conf:1: blocks stand in each other more than 64 deep",
		"options { include \"none\"; }": "/etc/named.conf:1: include: open /etc/none: file does not exist",
	} {
		_, err := confOf(map[string]string{"/etc/named.conf": text, "/etc/sub": "a;\n}"})
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestReadConf_Includes(t *testing.T) {
	b, err := confOf(map[string]string{
		"/etc/named.conf": `options { directory "/var/named"; }; include "zones/*"; include "here"; include "/abs";`,
		"/var/named/here": `a;`, "/etc/here": "wrong;", "/abs": `b;`, "/var/named/zones/x": `c { include "/abs"; };`,
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `"options" { "directory" "/var/named"; }; "c" { "b"; }; "a"; "b"; `
	if diff := cmp.Diff(want, shown(b)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// FuzzReadConf: what is read is written and read again as the same.
func FuzzReadConf(f *testing.F) {
	f.Add("options { directory \"/var\"; }; zone \"a\" IN { type primary; file \"a\"; /* x */ }; // y\n# z")
	f.Add("a{b{c;};};\"\\\"\";")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := confOf(map[string]string{"/etc/named.conf": text})
		if err != nil || strings.ContainsAny(text, "\\") {
			return
		}
		var write func(b block) string
		write = func(b block) string {
			var out strings.Builder
			for _, s := range b {
				for _, n := range s.nodes {
					if n.is {
						out.WriteString(" {" + write(n.block) + "}")
					} else {
						out.WriteString(" \"" + n.text + "\"")
					}
				}
				out.WriteString(";\n")
			}
			return out.String()
		}
		again, err := confOf(map[string]string{"/etc/named.conf": write(b)})
		if err != nil {
			t.Fatalf("%q becomes %q: %v", text, write(b), err)
		}
		if diff := cmp.Diff(shown(b), shown(again)); diff != "" {
			t.Errorf("%q (-first +again):\n%s", text, diff)
		}
	})
}
