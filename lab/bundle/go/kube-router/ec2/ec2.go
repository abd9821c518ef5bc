// Package ec2 stands in for AWS' one, a twentieth of all that the bundle would compile: kube-router calls it
// for nodes on EC2 alone, and a lab has none.
package ec2

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Client is one of EC2.
type Client struct{}

// NewFromConfig returns a client that uses nothing of the configuration.
func NewFromConfig(aws.Config) Client {
	return Client{}
}

// ModifyInstanceAttributeInput names an instance and an attribute of it.
type ModifyInstanceAttributeInput struct {
	InstanceId      *string
	SourceDestCheck *types.AttributeBooleanValue
}

// ModifyInstanceAttribute changes nothing, and says so in its error.
func (Client) ModifyInstanceAttribute(context.Context, *ModifyInstanceAttributeInput) (struct{}, error) {
	return struct{}{}, errors.New("the lab's kube-router is built without EC2")
}
