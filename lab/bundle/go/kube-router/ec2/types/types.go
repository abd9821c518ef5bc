// Package types holds what package ec2 takes.
package types

// AttributeBooleanValue is the value of an instance's attribute.
type AttributeBooleanValue struct {
	Value *bool
}
