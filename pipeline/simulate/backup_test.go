package simulate

import (
	"strings"
	"testing"
	"time"

	"sluice/keymgr"
)

// Keys are made ahead, and each waits until somebody has backed it up.
func TestRun_PoolAndBackups(t *testing.T) {
	s := Usual(policyOf(t, "[key-manager]\npool = { zsk = 1 }\nrequire-backup = true\n"), at(0), at(400))
	s.OperatorDelay = 6 * time.Hour
	sum, lines := rehearse(t, s)
	n, open := done(sum)
	if n[keymgr.RollZSK] != 4 || len(open) > 0 || sum.Bogus != 0 {
		t.Errorf("rollovers done: %v, not done: %+v, bogus: %d", n, open, sum.Bogus)
	}
	marks := 0
	for _, text := range texts(lines, KindPerson) {
		if strings.Contains(text, "backed up") {
			marks++
		}
	}
	if marks < 5 { // the first keys, and one of the pool for each rollover
		t.Errorf("a person was asked for %d backups: %q", marks, texts(lines, KindPerson))
	}
	s.OperatorDelay = -1
	if sum, _ = rehearse(t, s); len(sum.Rollovers) != 0 || sum.Persons == 0 {
		t.Errorf("without anybody: %+v", sum)
	}
}
