package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// openDNSSEC is an OpenDNSSEC of a test's own: an enforcer with a database in
// SQLite, and a signer, with keys on a token of SoftHSM.
type openDNSSEC struct {
	dir      string // of conf.xml and all else
	addr     string // where the signer gives zones out
	token    *softToken
	inside   []string // gives a process a /run and an /etc/opendnssec of its own
	enforcer *process
	signer   *process
}

// odsKASP is kasp.xml around policies.
const odsKASP = `<?xml version="1.0" encoding="UTF-8"?>
<KASP>
%s</KASP>
`

// odsOnePolicy is a policy: name, algorithm, length, denial, serial.
const odsOnePolicy = `<Policy name="%[1]s">
<Description>Quick turnaround</Description>
<Signatures>
	<Resign>PT5S</Resign><Refresh>PT30M</Refresh>
	<Validity><Default>PT2H</Default><Denial>PT2H</Denial></Validity>
	<Jitter>PT1M</Jitter><InceptionOffset>PT1H</InceptionOffset><MaxZoneTTL>PT5S</MaxZoneTTL>
</Signatures>
<Denial>%[4]s</Denial>
<Keys>
	<TTL>PT5S</TTL><RetireSafety>PT1S</RetireSafety><PublishSafety>PT1S</PublishSafety><Purge>P14D</Purge>
	<KSK><Algorithm length="%[3]d">%[2]d</Algorithm><Lifetime>P1Y</Lifetime><Repository>SoftHSM</Repository></KSK>
	<ZSK><Algorithm length="%[3]d">%[2]d</Algorithm><Lifetime>P90D</Lifetime><Repository>SoftHSM</Repository></ZSK>
</Keys>
<Zone><PropagationDelay>PT1S</PropagationDelay><SOA><TTL>PT5S</TTL><Minimum>PT5S</Minimum><Serial>%[5]s</Serial></SOA></Zone>
<Parent><PropagationDelay>PT1S</PropagationDelay><DS><TTL>PT5S</TTL></DS><SOA><TTL>PT5S</TTL><Minimum>PT5S</Minimum></SOA></Parent>
</Policy>
`

// odsSource is where a zone comes from: a file, or a server.
type odsSource struct{ zone, policy, file, server string }

// newOpenDNSSEC sets one up that tells a secondary; nothing runs yet.
func newOpenDNSSEC(t *testing.T, notify string, zones ...odsSource) *openDNSSEC {
	t.Helper()
	need(t, "ods-enforcerd", "ods-signerd", "ods-enforcer", "ods-signer", "ods-enforcer-db-setup", "softhsm2-util", "unshare", "mount")
	o := &openDNSSEC{dir: shortDir(t), addr: freeAddr(t), token: newSoftToken(t)}
	for _, sub := range []string{"run", "enforcer", "signer", "signconf", "signed"} {
		if err := os.Mkdir(filepath.Join(o.dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o.enter(t)
	o.write(t, "conf.xml", fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
<RepositoryList><Repository name="SoftHSM">
	<Module>%[1]s</Module><TokenLabel>zones</TokenLabel><PIN>%[2]s</PIN><SkipPublicKey/>
</Repository></RepositoryList>
<Common>
	<Logging><Verbosity>5</Verbosity></Logging>
	<PolicyFile>%[3]s/kasp.xml</PolicyFile><ZoneListFile>%[3]s/zonelist.xml</ZoneListFile>
</Common>
<Enforcer>
	<Datastore><SQLite>%[3]s/kasp.db</SQLite></Datastore>
	<AutomaticKeyGenerationPeriod>P90D</AutomaticKeyGenerationPeriod>
	<WorkingDirectory>%[3]s/enforcer</WorkingDirectory>
</Enforcer>
<Signer>
	<WorkingDirectory>%[3]s/signer</WorkingDirectory><WorkerThreads>2</WorkerThreads><SignerThreads>2</SignerThreads>
	<Listener><Interface><Address>127.0.0.1</Address><Port>%[4]s</Port></Interface></Listener>
</Signer>
</Configuration>
`, o.token.module, tokenPIN, o.dir, port(o.addr)))
	o.write(t, "kasp.xml", fmt.Sprintf(odsKASP,
		fmt.Sprintf(odsOnePolicy, "default", 8, 2048, `<NSEC3><Resalt>P100D</Resalt><Hash><Algorithm>1</Algorithm><Iterations>1</Iterations><Salt length="4"/></Hash></NSEC3>`, "unixtime")+
			fmt.Sprintf(odsOnePolicy, "ecdsa", 13, 256, "<NSEC/>", "counter")))
	var list strings.Builder
	for _, z := range zones {
		in := fmt.Sprintf(`<Adapter type="File">%s</Adapter>`, z.file)
		request := ""
		if z.server != "" {
			in = fmt.Sprintf(`<Adapter type="DNS">%s</Adapter>`, filepath.Join(o.dir, z.zone+".xml"))
			request = fmt.Sprintf("<Inbound><RequestTransfer><Remote><Address>127.0.0.1</Address><Port>%s</Port></Remote></RequestTransfer>"+
				"<AllowNotify><Peer><Prefix>127.0.0.1</Prefix></Peer></AllowNotify></Inbound>", port(z.server))
		}
		o.write(t, z.zone+".xml", fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<Adapter><DNS>%s<Outbound><ProvideTransfer><Peer><Prefix>127.0.0.1</Prefix></Peer></ProvideTransfer>
<Notify><Remote><Address>127.0.0.1</Address><Port>%s</Port></Remote></Notify></Outbound></DNS></Adapter>
`, request, port(notify)))
		fmt.Fprintf(&list, `<Zone name="%[1]s"><Policy>%[2]s</Policy><SignerConfiguration>%[3]s/signconf/%[1]s.xml</SignerConfiguration>
<Adapters><Input>%[4]s</Input><Output><Adapter type="DNS">%[3]s/%[1]s.xml</Adapter></Output></Adapters></Zone>
`, z.zone, z.policy, o.dir, in)
	}
	o.write(t, "zonelist.xml", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ZoneList>\n"+list.String()+"</ZoneList>\n")
	o.setUp(t)
	return o
}

// enter finds out how a process can have a /run and an /etc/opendnssec of its own
// here: not all paths of OpenDNSSEC can be configured.
func (o *openDNSSEC) enter(t *testing.T) {
	t.Helper()
	const script = `mount -t tmpfs none /run && mkdir /run/opendnssec && mount --bind "$0/run" /run/opendnssec && mount --bind "$0" /etc/opendnssec && exec "$@"`
	var saw result
	for _, flag := range []string{"-rm", "-m"} {
		o.inside = []string{"unshare", flag, "sh", "-c", script}
		if saw = run(t, o.inside[0], append(o.inside[1:], o.dir, "true")...); saw.code == 0 {
			return
		}
	}
	if os.Getenv("SLUICE_REQUIRE_PEERS") == "1" {
		t.Fatalf("no mounts of its own for OpenDNSSEC: %v", saw)
	}
	t.Skipf("no mounts of its own for OpenDNSSEC, which has its sockets in /run: %v", saw)
}

func (o *openDNSSEC) write(t *testing.T, name, text string) {
	t.Helper()
	writeFile(t, filepath.Join(o.dir, name), text)
}

func (o *openDNSSEC) conf() string { return filepath.Join(o.dir, "conf.xml") }

func (o *openDNSSEC) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(o.inside[0], append(append(append([]string{}, o.inside[1:]...), o.dir, name), args...)...)
	cmd.Env, cmd.Dir = o.token.env(), o.dir
	return cmd
}

// setUp makes the enforcer's database.
func (o *openDNSSEC) setUp(t *testing.T) {
	t.Helper()
	cmd := o.command("ods-enforcer-db-setup", "-f")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ods-enforcer-db-setup: %v\n%s", err, out)
	}
}

// startEnforcer and startSigner start the daemons.
func (o *openDNSSEC) startEnforcer(t *testing.T) {
	t.Helper()
	o.enforcer = startCommand(t, "ods-enforcerd", o.command("ods-enforcerd", "-d", "-c", o.conf()))
	t.Cleanup(o.enforcer.kill)
	await(t, "the enforcer runs", 20*time.Second, func() (bool, string) {
		r := o.ask(t, "enforcer", "running")
		return r.code == 0, r.String() + o.enforcer.tail()
	})
}

func (o *openDNSSEC) startSigner(t *testing.T) {
	t.Helper()
	o.signer = startCommand(t, "ods-signerd", o.command("ods-signerd", "-d", "-v", "-c", o.conf()))
	t.Cleanup(o.signer.kill) // as with the enforcer
	await(t, "the signer runs", 20*time.Second, func() (bool, string) {
		r := o.ask(t, "signer", "running")
		return r.code == 0, r.String() + o.signer.tail()
	})
}

// stopEnforcer ends the enforcer. It is killed: that of 2.1.12 now and then fails
// when it is told to end, and does not end then.
func (o *openDNSSEC) stopEnforcer(t *testing.T) {
	t.Helper()
	o.enforcer.kill()
	for _, name := range []string{"enforcerd.pid", "enforcer.sock"} {
		if err := os.Remove(filepath.Join(o.dir, "run", name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}

// ask has ods-enforcer or ods-signer do something.
func (o *openDNSSEC) ask(t *testing.T, who string, words ...string) result {
	t.Helper()
	socket := map[string]string{"enforcer": "enforcer.sock", "signer": "engine.sock"}[who]
	return run(t, "ods-"+who, "-s", filepath.Join(o.dir, "run", socket), strings.Join(words, " ")) // it takes few arguments
}

func (o *openDNSSEC) must(t *testing.T, who string, words ...string) string {
	t.Helper()
	r := o.ask(t, who, words...)
	if r.code != 0 {
		t.Fatalf("ods-%s %v: %v", who, words, r)
	}
	return r.stdout
}

// keys is the lines of a zone's keys: role, state and so on.
func (o *openDNSSEC) keys(t *testing.T, zone string) (lines []string) {
	t.Helper()
	for line := range strings.Lines(o.must(t, "enforcer", "key", "list", "--verbose", "--zone", zone)) {
		if strings.HasPrefix(line, zone) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// dsOf is the DS records of the keys with the SEP flag that a server shows.
func dsOf(t *testing.T, addr, zone string) (ds []string, tags []string) {
	t.Helper()
	m, err := query(addr, zone, dns.TypeDNSKEY)
	if err != nil {
		t.Fatal(err)
	}
	for _, rr := range m.Answer {
		if k, ok := rr.(*dns.DNSKEY); ok && k.Flags == 257 {
			ds = append(ds, k.ToDS(dns.SHA256).String())
			tags = append(tags, fmt.Sprint(k.KeyTag()))
		}
	}
	return ds, tags
}
