package filter_test

import (
	"fmt"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
	"github.com/tandemgw/tandem/internal/testkit/filters"
)

func ExampleParse() {
	e, err := filter.Parse(numbers,
		"startswith(telephoneNumber,'+4420') and not (serviceDetails/zoomPhoneCloudPeering/enabled eq true)")
	if err != nil {
		fmt.Println(err)
		return
	}
	n := &domain.Number{TelephoneNumber: "+442079460123"}
	fmt.Println(filters.Match(e, filters.OfNumber(n)))

	_, err = filter.Parse(numbers, "telephoneNumber gt '+44'")
	fmt.Println(err)
	// Output:
	// true
	// InvalidFilter (filter): filter: position 17: want eq or ne after telephoneNumber, got "gt"
}
