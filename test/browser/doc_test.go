// Package browser_test walks the public front's pages in Chromium, desktop and phone size. Its tests are long ones
// (deep), because they install the driver of the browser.
package browser_test
