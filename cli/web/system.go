package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
)

// policyPage is what the page of a policy shows; List is all of them.
type policyPage struct {
	List  []pipeline.PolicyInfo
	One   *pipeline.PolicyInfo
	Lines []string
}

func policies(v *visit) error {
	list, err := v.client.Policies(v.ctx())
	if err != nil {
		return err
	}
	v.render(http.StatusOK, "policies", "Policies", policyPage{List: list})
	return nil
}

func policy(v *visit) error {
	one, err := v.client.Policy(v.ctx(), v.r.PathValue("policy"))
	if err != nil {
		return err
	}
	v.render(http.StatusOK, "policy", "Policy "+one.Name, policyPage{One: &one, Lines: strings.Split(strings.TrimRight(one.Text, "\n"), "\n")})
	return nil
}

func reloadPolicies(v *visit) error {
	change, err := v.client.ReloadPolicies(v.ctx())
	if err != nil {
		return err
	}
	var parts []string
	for _, p := range []struct {
		word  string
		names []string
	}{{"added", change.Added}, {"changed", change.Updated}, {"removed", change.Removed}, {"bound anew", change.Rebound}} {
		if len(p.names) > 0 {
			parts = append(parts, p.word+": "+few(p.names))
		}
	}
	if len(change.Errors) > 0 {
		v.session.say(flash{Bad: true, Text: "Not all files could be read: " + strings.Join(change.Errors, "; ")})
		http.Redirect(v.w, v.r, "/policies", http.StatusSeeOther)
		return nil
	}
	if len(parts) == 0 {
		parts = []string{"nothing has changed"}
	}
	return v.done("The policy files were read again; "+strings.Join(parts, "; ")+".", "/policies")
}

// few names the first of many.
func few(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + " and " + plural(len(names)-most, "other")
}

// systemPage is what the page of the daemon shows.
type systemPage struct {
	Workers    pipeline.WorkersStatus
	Journal    *pipeline.JournalStatus
	JournalErr string
	Largest    []pipeline.ZonePosition // zones by what they hold
	Clock      pipeline.ClockStatus
	Keystores  []pipeline.KeystoreInfo
}

// maxLargest bounds the zones that are listed by size.
const maxLargest = 10

// system shows the processes, the journal, the clock and the keystores.
func system(v *visit) error {
	var p systemPage
	var err error
	if p.Workers, err = v.client.Workers(v.ctx()); err != nil {
		return err
	}
	if p.Clock, err = v.client.Clock(v.ctx()); err != nil {
		return err
	}
	if p.Keystores, err = v.client.Keystores(v.ctx()); err != nil {
		return err
	}
	if st, err := v.client.JournalStatus(v.ctx()); err != nil {
		p.JournalErr = err.Error()
	} else {
		p.Journal, p.Largest = &st, slices.DeleteFunc(st.Zones, func(z pipeline.ZonePosition) bool { return z.Held == nil })
		slices.SortStableFunc(p.Largest, func(a, b pipeline.ZonePosition) int { return cmp.Compare(*b.Held, *a.Held) })
		p.Largest = p.Largest[:min(len(p.Largest), maxLargest)]
	}
	v.render(http.StatusOK, "system", "System", p)
	return nil
}

// accessPage lists the tokens: who may do what, until when.
func accessPage(v *visit) error {
	tokens, err := v.client.Tokens(v.ctx())
	if err != nil {
		return err
	}
	v.render(http.StatusOK, "access", "Access", tokens)
	return nil
}

// auditView is what the audit page shows.
type auditView struct {
	Head    *pipeline.AuditHead
	Problem string
}

func auditPage(v *visit) error {
	var p auditView
	head, err := v.client.AuditHead(v.ctx())
	if err != nil {
		p.Problem = err.Error()
	} else {
		p.Head = &head
	}
	v.render(http.StatusOK, "audit", "Audit", p)
	return nil
}

func seal(v *visit) error {
	_, err := v.client.Seal(v.ctx())
	return v.after(err, "A new checkpoint was made.", "/audit")
}

// auditExport sends an export as a tar archive to keep.
func auditExport(v *visit) error {
	form, query := v.r.URL.Query(), url.Values{}
	for name := range strings.FieldsSeq(form.Get("zone")) {
		query.Add("zone", name)
	}
	for _, key := range []string{"since", "until"} {
		t, err := formTime(form.Get(key))
		if err != nil {
			return err
		}
		if !t.IsZero() {
			query.Set(key, t.Format(time.RFC3339))
		}
	}
	for _, key := range []string{"chunks", "drop-sealed"} {
		if form.Get(key) != "" {
			query.Set(key, "true")
		}
	}
	v.w.Header().Set("Content-Disposition", `attachment; filename="sluice-audit-`+v.now().UTC().Format("20060102T150405Z")+`.tar"`)
	return v.pass(v.ctx(), "/audit/export", query)
}
