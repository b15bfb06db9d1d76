package xfr

import (
	"fmt"
	"time"
)

// Alarm is what an operator must see to: files that changed and cannot be used, or
// a certificate that ends within a week; "" where there is nothing.
func (c *Certificate) Alarm(now time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err.Error() + "; the certificate before it stays in use"
	}
	if end := c.cert.Leaf.NotAfter; end.Sub(now) < certificateSoon {
		return fmt.Sprintf("the certificate of %s ends at %s", c.certFile, end.UTC().Format(time.RFC3339))
	}
	return ""
}
